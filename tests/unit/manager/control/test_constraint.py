import pytest

from manager.control.constraint import hold, parse
from shoal.errors import InvalidArgument
from shoal.model.base import Meta
from shoal.model.node import Node, NodeDescription, NodeSpec, Role

NODE = Node(
    meta=Meta("abc123"),
    spec=NodeSpec(role=Role.MANAGER, labels={"zone": "East", "disk": "ssd"}),
    description=NodeDescription(
        hostname="web-1", os="linux", architecture="x86_64", address="10.1.2.3", engine_labels={"gpu": "yes"}
    ),
)


@pytest.mark.parametrize(
    "text",
    [
        "node.id==abc123",
        "node.hostname==WEB-1",
        "node.role==manager",
        "node.role != worker",
        "node.platform.os==linux",
        "node.platform.arch==amd64",
        "node.platform.arch==x86_64",
        "node.labels.zone==east",
        "node.labels.zone == EAST ",
        "node.labels.missing!=x",
        "engine.labels.gpu==yes",
        "node.ip==10.1.2.3",
        "node.ip==10.1.0.0/16",
        "node.ip!=10.2.0.0/16",
    ],
)
def test_holds(text):
    assert parse(text).holds(NODE)


@pytest.mark.parametrize(
    "text",
    [
        "node.id!=abc123",
        "node.id==abc",
        "node.role==worker",
        "node.labels.zone==west",
        "node.labels.zone!=east",
        "node.labels.missing==x",
        "engine.labels.zone==east",
        "node.ip==10.1.2.4",
        "node.ip!=10.1.0.0/16",
        "node.platform.arch==arm64",
    ],
)
def test_does_not_hold(text):
    assert not parse(text).holds(NODE)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "node.id",
        "node.id=abc",
        "node.id==",
        "==x",
        "node.id>=3",
        "node.unknown==x",
        "node.labels.==x",
        "labels.zone==x",
        "node.ip==10.0.0.0/99",
        "node.ip==everywhere",
    ],
)
def test_what_means_nothing_is_refused(text):
    with pytest.raises(InvalidArgument):
        parse(text)


def test_all_must_hold():
    assert hold(("node.role==manager", "node.labels.disk==ssd"), NODE)
    assert not hold(("node.role==manager", "node.labels.disk==hdd"), NODE)
    assert hold((), NODE)


def test_a_node_that_has_not_said_where_it_is_matches_no_subnet():
    assert not parse("node.ip==10.0.0.0/8").holds(Node())
    assert parse("node.ip!=10.0.0.0/8").holds(Node())
