"""What a call to a node's engine is about, as the audit record tells it."""

import pytest

from manager.api.deed import object_in
from shoal.v1 import engine_pb2
from shoal.v1.types_pb2 import ContainerSpec, NetworkSpec


@pytest.mark.parametrize(
    ("method", "request_", "object_"),
    [
        ("Network/CreateLocalNetwork", engine_pb2.CreateLocalNetworkRequest(spec=NetworkSpec(name="back")), "back"),
        ("Container/CreateContainer", engine_pb2.CreateContainerRequest(spec=ContainerSpec(image="web:1")), "web:1"),
        ("Container/CreateContainer", engine_pb2.CreateContainerRequest(name="web"), "web"),
        ("Container/ConnectContainer", engine_pb2.ConnectContainerRequest(container="web"), "web"),
        ("Container/AttachContainer", engine_pb2.AttachContainerRequest(open={"container": "web"}), "web"),
        ("Network/PruneLocalNetworks", engine_pb2.PruneLocalNetworksRequest(), ""),
    ],
)
def test_its_name_is_told(method, request_, object_):
    service, _, name = method.partition("/")
    assert object_in(f"/shoal.v1.{service}Service/{name}", request_.SerializeToString()) == object_
