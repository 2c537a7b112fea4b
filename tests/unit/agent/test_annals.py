"""What an agent that starts again knows of what was."""

from agent.annals import Annals
from agent.chronicle import Chronicle
from shoal.clock import SystemClock
from shoal.model.event import Event, EventKind


def event(number):
    return Event(EventKind.CONTAINER, "die", f"c{number}", {"name": "web"}, number)


async def test_a_chronicle_that_begins_again_goes_on_where_it_was(tmp_path):
    Chronicle(SystemClock(), Annals(tmp_path / "events", 8)).tell(event(1))
    again = Chronicle(SystemClock(), Annals(tmp_path / "events", 8))
    again.tell(event(2))
    told = await anext(again.follow(since_ns=1, until_ns=1 << 62))
    assert [each.id for each in told] == ["c1", "c2"]


def test_the_file_stays_short_and_keeps_the_last(tmp_path):
    annals = Annals(tmp_path / "events", 3)
    assert annals.load() == []
    events = [event(number) for number in range(50)]
    for number, each in enumerate(events):
        annals.add(each, events[max(0, number - 2) : number + 1])
    assert len((tmp_path / "events").read_text().splitlines()) <= 6
    assert Annals(tmp_path / "events", 3).load() == events[-3:]


def test_a_torn_line_is_left_out(tmp_path):
    annals = Annals(tmp_path / "events", 3)
    annals.load()
    annals.add(event(1), [event(1)])
    with (tmp_path / "events").open("ab") as file:
        file.write(b'{"kind": 1, "acti')
    assert Annals(tmp_path / "events", 3).load() == [event(1)]


def test_a_file_that_cannot_be_written_stops_nobody(tmp_path):
    (tmp_path / "run").write_text("in the way")
    annals = Annals(tmp_path / "run" / "events", 3)
    assert annals.load() == []
    annals.add(event(1), [event(1)])
