"""`ps --filter`."""

import pytest

from agent.container.filter import Known, selected, shows_stopped
from shoal.errors import InvalidArgument
from shoal.model.base import Meta
from shoal.model.container import Container, ContainerSpec, ContainerState, ContainerStatus, Mount
from shoal.model.network import Address, NetworkAttachment, Port, PortProtocol

WEB = Container(
    meta=Meta(id="aa11", created_at_ns=1),
    name="web.1",
    spec=ContainerSpec(image="nginx:1", labels={"tier": "front", "flag": ""}),
    image_id="sha256:1",
    networks=(NetworkAttachment("bridge"),),
    ports=(Port(target=80, published=8080),),
    mounts=(Mount(source="data", target="/data"),),
    status=ContainerStatus(
        state=ContainerState.RUNNING,
        addresses=(Address(network_name="bridge", network_id="n1d"),),
        ports=(Port(target=80, published=8080),),
    ),
)
DB = Container(
    meta=Meta(id="bb22", created_at_ns=2),
    name="db",
    spec=ContainerSpec(image="pg"),
    image_id="sha256:2",
    task_id="t1",
    ports=(Port(target=53, protocol=PortProtocol.UDP),),
    status=ContainerStatus(state=ContainerState.EXITED, exit_code=3),
)
KNOWN = Known(ancestors={"base": frozenset({"sha256:2"})}, created_at_ns={"web.1": 1, "db": 2})


def names(*filters):
    return [each.name for each in selected((WEB, DB), filters, KNOWN)]


@pytest.mark.parametrize(
    ("key", "value", "found"),
    [
        ("id", "aa", ["web.1"]),
        ("name", "b$", ["db"]),
        ("name", "^/web", ["web.1"]),
        ("name", "(", []),
        ("label", "tier", ["web.1"]),
        ("label", "tier=front", ["web.1"]),
        ("label", "tier=back", []),
        ("label", "flag=", ["web.1"]),
        ("status", "running", ["web.1"]),
        ("status", "removing", []),
        ("exited", "3", ["db"]),
        ("exited", "0", []),
        ("ancestor", "nginx:1", []),  # the name is another image's by now
        ("ancestor", "base", ["db"]),
        ("before", "db", ["web.1"]),
        ("since", "web.1", ["db"]),
        ("volume", "data", ["web.1"]),
        ("volume", "/data", ["web.1"]),
        ("network", "n1", ["web.1"]),
        ("publish", "8000-8100", ["web.1"]),
        ("expose", "53/udp", ["db"]),
        ("expose", "53", []),
        ("health", "none", ["web.1", "db"]),
        ("is-task", "true", ["db"]),
    ],
)
def test_each_filter(key, value, found):
    assert names((key, value)) == found


def test_values_of_one_key_are_alternatives_but_labels_and_keys_add_up():
    assert names(("name", "web"), ("name", "db")) == ["web.1", "db"]
    assert names(("label", "tier"), ("label", "nope")) == []
    assert names(("name", "web"), ("status", "exited")) == []


@pytest.mark.parametrize(
    ("key", "value"), [("nope", ""), ("status", "odd"), ("exited", "x"), ("is-task", "maybe"), ("publish", "a-b")]
)
def test_what_is_no_filter_is_refused(key, value):
    with pytest.raises(InvalidArgument):
        names((key, value))


def test_a_filter_on_the_state_asks_for_stopped_ones():
    assert shows_stopped([("exited", "0")])
    assert not shows_stopped([("name", "x")])
