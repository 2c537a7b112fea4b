"""Bulletins: whatever happens, who heard every change knows what one who comes now is told, and that is what holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.assignment import Assignment, changed, changes_in
from manager.dispatcher.assigner import Assigner
from manager.dispatcher.bulletin import Bulletin
from manager.store.mirror import MirrorEvent
from manager.store.records import Noun, kind_of, lease_id
from manager.store.view import View
from shoal.model.base import Meta
from shoal.model.network import Address, Lease, Network, NetworkAttachment, NetworkScope, NetworkSpec
from shoal.model.node import Node, NodeDescription, NodeState, NodeStatus
from shoal.model.service import Service, ServiceSpec, TaskSpec, VirtualAddress
from shoal.model.task import Task, TaskState, TaskStatus
from shoal.v1 import dispatcher_pb2 as wire

NODES, TASKS = ("a", "b", "c"), ("t1", "t2", "t3", "t4")


def network() -> Network:
    return Network(Meta("n1"), NetworkSpec(name="net"), NetworkScope.SWARM, subnet="10.1.0.0/16")


def node(id: str, state: NodeState, address: str) -> Node:
    return Node(Meta(id), description=NodeDescription(hostname=id, address=address), status=NodeStatus(state))


def lease(node_id: str) -> Lease:
    return Lease(Meta(lease_id("n1", node_id)), "n1", node_id, f"10.1.{NODES.index(node_id)}.0/24")


def service(*, attached: bool) -> Service:
    networks = (NetworkAttachment("net", ("alias",)),) if attached else ()
    addresses = (VirtualAddress("n1", "10.1.9.1"),) if attached else ()
    return Service(Meta("s1"), ServiceSpec("web", task=TaskSpec(networks=networks)), 1, addresses=addresses)


def task(id: str, state: TaskState, desired: TaskState) -> Task:
    status = TaskStatus(state=state, addresses=(Address("n1", address=f"10.1.0.{TASKS.index(id) + 2}"),))
    return Task(Meta(id), "s1", 1, TASKS.index(id) + 1, NODES[TASKS.index(id) % 3], desired, status)


EVENTS = st.one_of(
    st.builds(node, st.sampled_from(NODES), st.sampled_from(NodeState), st.sampled_from(["", "10.9.0.1", "10.9.0.2"])),
    st.builds(lease, st.sampled_from(NODES)),
    st.builds(service, attached=st.booleans()),
    st.builds(
        task,
        st.sampled_from(TASKS),
        st.sampled_from([TaskState.ASSIGNED, TaskState.RUNNING, TaskState.SHUTDOWN]),
        st.sampled_from([TaskState.RUNNING, TaskState.SHUTDOWN]),
    ),
    st.just(network()),
    st.sampled_from(
        [("node", each) for each in NODES]
        + [("lease", f"n1.{each}") for each in NODES]
        + [("task", each) for each in TASKS]
        + [("service", "s1"), ("network", "n1")]
    ),
)


def happens(view: View, assigner: Assigner, what: Noun | tuple[str, str]) -> None:
    if isinstance(what, tuple):
        event = MirrorEvent(*what, view.remove(*what), None, 0)
    else:
        event = MirrorEvent(kind_of(what), what.meta.id, view.put(what), what, 0)
    if event.old is not None or event.new is not None:
        assigner.apply(event)


def told(assignment: Assignment, parts: list[bytes]) -> Assignment:
    """What an agent makes of it."""
    for part in parts:
        assignment = changed(assignment, changes_in(wire.SessionResponse.FromString(part).assignments))
    return assignment


@given(st.lists(st.tuples(EVENTS, st.booleans()), max_size=40))
def test_who_heard_every_change_knows_what_holds(happenings: list[tuple[Noun | tuple[str, str], bool]]) -> None:
    view = View([network(), service(attached=True)])
    assigner = Assigner(view)
    bulletin = assigner.bulletin("n1")
    follower, position = told(Assignment(), bulletin.whole()), bulletin.position
    for what, listening in happenings:
        happens(view, assigner, what)
        if listening:
            bulletin.settle()
            follower, position = told(follower, bulletin.since(position) or []), bulletin.position
    bulletin.settle()
    follower = told(follower, bulletin.since(position) or [])
    assert follower == told(Assignment(), bulletin.whole())
    fresh = Bulletin(view, "n1")
    fresh.settle()
    assert follower == told(Assignment(), fresh.whole())
    assert told(follower, bulletin.removal()) == Assignment({}, {}, {}, {})


def test_a_change_is_encoded_once_however_many_hear_it() -> None:
    view = View([network(), service(attached=True), *(node(id, NodeState.READY, "10.9.0.1") for id in NODES)])
    assigner = Assigner(view)
    bulletin = assigner.bulletin("n1")
    before = bulletin.position
    happens(view, assigner, task("t1", TaskState.RUNNING, TaskState.RUNNING))
    assert bulletin.settle() and not bulletin.settle()
    (one,), (other,) = bulletin.since(before) or [], bulletin.since(before) or []
    assert one is other
    assert len(one) < 200


def test_news_that_one_session_fetched_are_announced_to_all() -> None:
    there = [node(id, NodeState.READY, "10.9.0.1") for id in NODES]
    view = View([network(), service(attached=True), *there, *map(lease, NODES)])
    assigner = Assigner(view)
    assigner.bulletin("n1")
    assert assigner.settle() == set(NODES)
    happens(view, assigner, task("t1", TaskState.RUNNING, TaskState.RUNNING))
    assert not assigner.bulletin("n1").settle()
    assert assigner.settle() == set(NODES)
    assert assigner.settle() == set()


def test_who_fell_behind_what_is_kept_is_told_so() -> None:
    view = View([network(), service(attached=True), node("a", NodeState.READY, "10.9.0.1")])
    bulletin = Bulletin(view, "n1", kept_bytes=1000)
    bulletin.settle()
    behind = bulletin.position
    for number in range(50):
        state = TaskState.SHUTDOWN if number % 2 else TaskState.RUNNING
        view.put(task("t1", state, TaskState.RUNNING))
        bulletin.touch(("backend", "s1", "t1"))
        assert bulletin.settle()
    assert bulletin.since(behind) is None
    assert bulletin.since(bulletin.position) == []
    assert told(Assignment(), bulletin.whole()).endpoints.keys() == {"s1.n1"}
