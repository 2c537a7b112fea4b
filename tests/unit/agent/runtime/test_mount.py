"""Options of `mounts`: what they come to, the later over the earlier, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from agent.kernel import syscalls as sys
from agent.runtime.failure import Failure
from agent.runtime.spec.mount import IdMapping, Mount, options, parse_mount


def mount(*words: str, **fields: Any) -> Mount:
    return parse_mount({"destination": "/d", "type": "bind", "source": "/s", "options": list(words), **fields})


def test_the_last_word_counts() -> None:
    made = mount("ro", "rw", "nosuid")
    assert made.set_flags == sys.MS_NOSUID
    assert made.clear_flags == sys.MS_RDONLY


def test_a_deep_option_holds_for_the_mount_itself_too() -> None:
    made = mount("rbind", "rro", "rnosuid", "rsuid")
    assert made.set_flags == made.deep_set_flags == sys.MS_RDONLY
    assert made.clear_flags == made.deep_clear_flags == sys.MS_NOSUID
    assert made.recursive


def test_propagation_is_apart() -> None:
    made = mount("rbind", "rslave")
    assert (made.propagation, made.deep_propagation) == (sys.MS_SLAVE, True)
    assert mount("bind", "slave").deep_propagation is False


def test_what_nobody_knows_is_for_the_file_system() -> None:
    made = parse_mount({"destination": "/t", "type": "tmpfs", "options": ["size=1m", "nosuid", "mode=755"]})
    assert (made.kind, made.data, made.source) == ("tmpfs", "size=1m,mode=755", "tmpfs")


def test_id_maps_need_both_kinds() -> None:
    maps = [{"containerID": 0, "hostID": 100, "size": 5}]
    made = mount("bind", uidMappings=maps, gidMappings=maps)
    assert made.uids == (IdMapping(0, 100, 5),)
    assert made.id_mapped
    with pytest.raises(Failure, match="go together"):
        mount("bind", uidMappings=maps)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"destination": "/d", "type": "bind", "source": "/s", "options": ["size=1"]}, "does not apply"),
        ({"destination": "/d", "type": "bind", "source": "s"}, "absolute path"),
        ({"destination": "/", "type": "tmpfs"}, "hide the container's root"),
        ({"destination": "/proc/self", "type": "tmpfs"}, "may not be covered"),
        ({"destination": "/d", "type": "bind", "source": "/s", "options": ["tmpcopyup"]}, "is for a tmpfs"),
        ({"destination": "/d", "type": "tmpfs", "options": ["remount"]}, "remount"),
        ({"destination": "d", "type": "tmpfs"}, "not absolute"),
        ({"destination": "/d", "type": "tmpfs", "label": "x"}, "label"),
    ],
)
def test_what_makes_no_sense_is_refused(entry: dict[str, Any], words: str) -> None:
    with pytest.raises(Failure, match=words):
        parse_mount(entry)


def test_every_option_that_is_listed_is_understood() -> None:
    for word in options():
        if word != "tmpcopyup":
            assert mount(word).data == ""
