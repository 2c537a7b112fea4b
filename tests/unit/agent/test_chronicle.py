"""What happened on this host, and who is told what of it."""

import asyncio

import pytest

from agent.chronicle import REMEMBERED, Chronicle, selected
from shoal.clock import SystemClock
from shoal.errors import InvalidArgument
from shoal.model.event import Event, EventKind

DIE = Event(EventKind.CONTAINER, "die", "abc", {"name": "web", "image": "nginx:1", "tier": "front"}, 10)
EXEC = Event(EventKind.CONTAINER, "exec_start: sh -c x", "abc", {"name": "web", "image": "nginx:1"}, 20)
PULL = Event(EventKind.IMAGE, "pull", "sha256:1", {"name": "nginx:1"}, 30)
MADE = Event(EventKind.VOLUME, "create", "data", {"driver": "local"}, 40)
JOIN = Event(EventKind.NETWORK, "connect", "n1", {"name": "bridge", "container": "abc"}, 50)
ALL = [DIE, EXEC, PULL, MADE, JOIN]


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ((), ALL),
        ((("type", "container"),), [DIE, EXEC]),
        ((("event", "die"), ("event", "pull")), [DIE, PULL]),
        ((("event", "exec_start"),), [EXEC]),
        ((("event", "exec"),), []),
        ((("container", "web"),), [DIE, EXEC]),
        ((("container", "ab"), ("event", "die")), [DIE]),
        ((("container", "other"),), []),
        ((("image", "nginx"),), [DIE, EXEC, PULL]),
        ((("image", "nginx:1"), ("type", "image")), [PULL]),
        ((("label", "tier"),), [DIE]),
        ((("label", "tier=back"),), []),
        ((("volume", "data"),), [MADE]),
        ((("network", "bridge"),), [JOIN]),
        ((("scope", "swarm"),), []),
    ],
)
def test_values_of_one_key_are_alternatives_and_keys_add_up(filters, expected):
    assert selected(ALL, filters) == expected


def test_what_comes_later_than_asked_for_is_left_out():
    assert selected(ALL, (), until_ns=30) == [DIE, EXEC, PULL]


@pytest.mark.parametrize("filters", [(("odd", "1"),), (("type", "odd"),)])
async def test_a_filter_that_is_none(filters):
    with pytest.raises(InvalidArgument, match="filter"):
        await anext(Chronicle(SystemClock()).follow(filters=filters))


async def test_the_past_comes_first_and_only_so_much_of_it():
    chronicle = Chronicle(SystemClock())
    for number in range(REMEMBERED + 10):
        chronicle.tell(Event(id=str(number)))
    following = chronicle.follow(since_ns=1)
    past = await anext(following)
    assert [each.id for each in past] == [str(number) for number in range(10, REMEMBERED + 10)]
    assert all(each.at_ns for each in past)
    next_one = asyncio.ensure_future(anext(following))
    await asyncio.sleep(0)
    chronicle.tell(Event(id="new"))
    assert [each.id for each in await asyncio.wait_for(next_one, 60)] == ["new"]


async def test_it_ends_at_the_time_given_and_tells_nothing_of_the_past_unasked():
    clock = SystemClock()
    chronicle = Chronicle(clock)
    chronicle.tell(Event(id="old"))
    assert [each async for each in chronicle.follow(until_ns=clock.now_ns() + 10_000_000)] == []
    assert [each.id async for batch in chronicle.follow(since_ns=1, until_ns=clock.now_ns()) for each in batch] == [
        "old"
    ]
