from manager.store.base import Record
from manager.store.records import decode, encode, key_for, key_of, lease_id, split
from manager.store.view import View
from shoal.model.base import Meta
from shoal.model.cluster import Cluster
from shoal.model.network import Lease, Network, NetworkSpec
from shoal.model.node import Node, NodeDescription
from shoal.model.service import Service, ServiceSpec
from shoal.model.task import Task, TaskState, TaskStatus


def task(id, service="s", node="", state=TaskState.RUNNING):
    return Task(Meta(id), service_id=service, node_id=node, status=TaskStatus(state=state))


def test_a_record_keeps_its_value_and_gets_its_revision():
    value = task("t1", node="n1")
    record = Record(key_for(value), encode(value), 7, 3)
    found = decode(record)
    assert isinstance(found, Task)
    assert (found.meta.version, found.node_id) == (7, "n1")


def test_keys_of_others_are_no_records():
    assert split(key_of("task", "t1")) == ("task", "t1")
    assert split("/leader") is None and split("/name/service/web") is None and split("/task/") is None


def test_tasks_are_found_by_service_and_node():
    view = View([task("a", "s1", "n1"), task("b", "s1", "n2"), task("c", "s2", "n1")])
    assert {each.meta.id for each in view.tasks_of_service("s1")} == {"a", "b"}
    assert {each.meta.id for each in view.tasks_of_node("n1")} == {"a", "c"}
    assert view.tasks_of_service("none") == ()


def test_a_task_is_on_its_node_once_it_was_sent_there():
    view = View([task("a", node="n1", state=TaskState.PENDING)])
    assert view.tasks_of_node("n1") == ()
    assert len(view.tasks_unassigned()) == 1
    view.put(task("a", node="n1", state=TaskState.ASSIGNED))
    assert len(view.tasks_of_node("n1")) == 1
    assert view.tasks_unassigned() == ()


def test_removal_leaves_no_trace():
    view = View([task("a", "s1", "n1"), Lease(Meta(lease_id("x", "n1")), "x", "n1", "10.0.0.0/26")])
    assert view.remove("task", "a") is not None
    view.remove("lease", "x.n1")
    assert view.remove("task", "a") is None
    assert view.tasks_of_service("s1") == view.tasks_of_node("n1") == view.services_with_tasks() == ()
    assert view.leases_of_network("x") == view.leases_of_node("n1") == ()


def test_names_follow_changes():
    view = View([Service(Meta("s1"), ServiceSpec(name="old"))])
    view.put(Service(Meta("s1"), ServiceSpec(name="new")))
    found = view.service_named("new")
    assert found is not None and found.meta.id == "s1"
    assert view.service_named("old") is None


def test_of_two_hosts_with_one_name_the_first_is_found():
    one, other = (Node(Meta(id), description=NodeDescription(hostname="host")) for id in "ab")
    view = View([one, other])
    assert view.node_named("host") is one
    view.remove("node", "a")
    assert view.node_named("host") is other


def test_networks_are_found_by_id_before_name():
    view = View([Network(Meta("a"), NetworkSpec(name="b")), Network(Meta("b"), NetworkSpec(name="c"))])
    by_id, by_name = view.network("b"), view.network("c")
    assert by_id is by_name and by_id is not None and by_id.meta.id == "b"
    assert view.network("d") is None


def test_there_is_one_cluster():
    assert View().cluster is None
    assert View([Cluster(Meta("c"))]).cluster == Cluster(Meta("c"))


def test_collections_are_copies():
    view = View([task("a"), task("b")])
    for each in view.tasks_of_service("s"):
        view.remove("task", each.meta.id)
    assert view.tasks == {}


def test_a_follower_is_made_once_and_told_of_every_change():
    class Ids:
        def __init__(self, view):
            self.seen = list(view.nodes)

        def changed(self, old, new):
            self.seen.append((old and old.meta.version, new and new.meta.version))

    view = View([Node(Meta("a", version=1))])
    follower = view.follower(Ids)
    view.put(Node(Meta("a", version=2)))
    view.remove("node", "a")
    view.remove("node", "a")
    assert view.follower(Ids) is follower
    assert follower.seen == ["a", (1, 2), (2, None)]


def test_services_that_are_gone_are_known_by_their_tasks():
    view = View([Service(Meta("s1")), task("t1", "s1"), task("t2", "s2")])
    assert view.services_gone() == {"s2"}
    view.remove("service", "s1")
    assert view.services_gone() == {"s1", "s2"}
    view.remove("task", "t2")
    assert view.services_gone() == {"s1"}


def test_new_tasks_are_those_that_the_allocator_has_not_seen_to():
    view = View([task("t1", state=TaskState.NEW), task("t2", state=TaskState.PENDING)])
    assert [each.meta.id for each in view.tasks_new()] == ["t1"]
    view.put(task("t1", state=TaskState.PENDING))
    assert view.tasks_new() == ()
    assert len(view.tasks_unassigned()) == 2
