"""Who calls whom dead, over managers that die, return and lose the store in any order: never a node that lives and
finds a manager in time, and every node that is dead, within a bound."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from manager.control.tenure import LEASE_S
from manager.dispatcher.judgement import (
    BEATS_PER_S,
    BROKEN_STREAM_SHARE,
    GRACE_TIMEOUTS,
    Contact,
    Judge,
    deadline_of,
    heartbeat_s,
)
from shoal import defaults
from shoal.model.base import Meta
from shoal.model.node import Node, NodeState, NodeStatus

TIMEOUT_S = defaults.CLUSTER.node_timeout_ns / 1e9
HEARTBEAT_S = 2.0
STEP_S = 0.5
# Within this time of its manager's end an agent has a session with another, if there is one: what agents promise.
FIND_S = TIMEOUT_S - 2 * STEP_S


class Manager:
    def __init__(self) -> None:
        self.since: float | None = None
        self.ended = 0.0
        self.contacts: dict[str, Contact] = {}
        self.gone: dict[str, float] = {}


class World:
    """Time in steps; each node is a live agent, or dead since a moment."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.managers = {id: Manager() for id in ("m1", "m2", "m3")}
        self.nodes = {id: Node(Meta(id), status=NodeStatus(NodeState.READY, "", 0, "m1")) for id in ("a", "b")}
        self.dead: dict[str, float] = {}
        self.lost_at = dict.fromkeys(self.nodes, self.now)

    def serving(self) -> list[str]:
        return [id for id, manager in self.managers.items() if manager.since is not None]

    def leader(self) -> str:
        return next(iter(self.serving()), "")

    def flip(self, id: str, *, politely: bool = False) -> None:
        """A manager ends, or begins with an empty memory. One that ends politely gives its lease back."""
        manager = self.managers[id]
        if manager.since is None:
            self.managers[id] = manager = Manager()
            manager.since = self.now
        else:
            manager.since, manager.ended = None, self.now - (LEASE_S if politely else 0)

    def step(self, find_s: float) -> None:
        self.now += STEP_S
        for id in self.nodes:
            if id not in self.dead:
                self._call(id, find_s)
        for id in self.serving():
            for other, manager in self.managers.items():
                if manager.since is None and self.now - manager.ended >= LEASE_S:
                    self.managers[id].gone.setdefault(other, self.now)
                elif manager.since is not None:
                    self.managers[id].gone.pop(other, None)

    def _call(self, id: str, find_s: float) -> None:
        holder = self.managers[self.nodes[id].status.manager_id]
        if holder.since is not None and id in holder.contacts:
            self.lost_at[id] = self.now
            if self.now - holder.contacts[id].heard_at >= HEARTBEAT_S:
                holder.contacts[id] = Contact(self.now)
        elif not self.serving():
            self.lost_at[id] = self.now
        elif self.now - self.lost_at[id] >= find_s:
            to = self.serving()[-1]
            self.managers[to].contacts[id] = Contact(self.now)
            status = NodeStatus(NodeState.READY, "", 0, to)
            self.nodes[id] = msgspec.structs.replace(self.nodes[id], status=status)
            self.lost_at[id] = self.now

    def judged(self) -> Iterator[str]:
        """Nodes that a manager would call dead now."""
        for own_id in self.serving():
            manager = self.managers[own_id]
            judge = Judge(own_id, manager.since or 0.0, own_id == self.leader(), TIMEOUT_S)
            for id, node in self.nodes.items():
                deadline = deadline_of(
                    node,
                    judge,
                    manager.contacts.get(id),
                    watched_since=judge.since,
                    gone_at=manager.gone.get(node.status.manager_id),
                )
                if deadline is not None and deadline <= self.now:
                    yield id


EVENTS = st.lists(st.tuples(st.sampled_from(("m1", "m2", "m3")), st.integers(1, 40)), max_size=20)


@given(events=EVENTS, find_s=st.floats(0, FIND_S), politely=st.booleans())
@example(events=[("m2", 40), ("m2", 20)], find_s=FIND_S, politely=True)
def test_who_lives_and_finds_a_manager_in_time_is_never_called_dead(
    events: list[tuple[str, int]], find_s: float, politely: bool
) -> None:
    world = World()
    world.flip("m1")
    for manager, steps in events:
        world.flip(manager, politely=politely)
        for _ in range(steps):
            world.step(find_s)
            assert not list(world.judged())


@given(events=EVENTS, victim=st.integers(0, 20))
def test_who_is_dead_is_called_dead_by_whoever_is_left(events: list[tuple[str, int]], victim: int) -> None:
    world = World()
    world.flip("m1")
    for number, (manager, steps) in enumerate(events):
        if number == victim:
            world.dead["a"] = world.now
        world.flip(manager)
        for _ in range(steps):
            world.step(0)
    world.dead.setdefault("a", world.now)
    if not world.serving():
        world.flip("m2")
    for _ in range(int((GRACE_TIMEOUTS * TIMEOUT_S + LEASE_S + TIMEOUT_S) / STEP_S)):
        world.step(0)
        if "a" in world.judged():
            return
    raise AssertionError("nobody noticed")


@given(leads=st.booleans(), since=st.floats(0, 100), state=st.sampled_from([NodeState.READY, NodeState.UNKNOWN]))
def test_the_nodes_of_a_manager_that_is_there_are_its_own_business(leads: bool, since: float, state: NodeState) -> None:
    node = Node(Meta("a"), status=NodeStatus(state, "", 0, "m2"))
    judge = Judge("m1", since, leads, TIMEOUT_S)
    assert deadline_of(node, judge, Contact(since), watched_since=since, gone_at=None) is None


@given(nodes=st.integers(0, 20_000), configured_s=st.floats(0.5, 60))
def test_signs_of_life_come_as_configured_or_as_often_as_a_manager_bears(nodes: int, configured_s: float) -> None:
    period_s = heartbeat_s(configured_s, nodes)
    assert period_s >= configured_s
    assert nodes <= BEATS_PER_S * period_s
    assert period_s == configured_s or nodes > BEATS_PER_S * period_s / 2


@given(patience_s=st.floats(0, 100), crowd_s=st.floats(0, 100))
def test_a_large_cluster_has_more_time_but_a_broken_stream_counts_as_ever(patience_s: float, crowd_s: float) -> None:
    node = Node(Meta("a"), status=NodeStatus(NodeState.READY, "", 0, "m1"))
    judge = Judge("m1", 0.0, True, TIMEOUT_S, patience_s, crowd_s)
    silent = deadline_of(node, judge, Contact(50.0), watched_since=0.0, gone_at=None)
    assert silent == 50.0 + max(TIMEOUT_S, patience_s)
    broken = deadline_of(node, judge, Contact(50.0, 50.0), watched_since=0.0, gone_at=None)
    assert broken == 50.0 + TIMEOUT_S * BROKEN_STREAM_SHARE
    returning = deadline_of(node, judge, None, watched_since=0.0, gone_at=None)
    assert returning == GRACE_TIMEOUTS * TIMEOUT_S + crowd_s
