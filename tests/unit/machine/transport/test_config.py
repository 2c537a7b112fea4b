"""The way to a host, as the user's ssh_config has it."""

from __future__ import annotations

from pathlib import Path

import pytest

from machine.model import Machine, Ssh
from machine.transport.config import Config, Hop
from shoal.errors import InvalidArgument


def way(tmp_path: Path, text: str, machine: Machine) -> tuple[Hop, ...]:
    file = tmp_path / "config"
    file.write_text(text)
    return Config.load([file]).way(machine)


def test_options_of_the_machine_come_before_those_of_the_configuration(tmp_path: Path) -> None:
    text = "Host n1\n  HostName 10.0.0.1\n  User ann\n  Port 2200\n  HostKeyAlias rack\n"
    (hop,) = way(tmp_path, text, Machine("n1", "n1"))
    assert (hop.address, hop.user, hop.port, hop.known_as) == ("10.0.0.1", "ann", 2200, "[rack]:2200")
    (hop,) = way(tmp_path, text, Machine("n1", "n1", ssh=Ssh("bob", 22, ("k",))))
    assert (hop.user, hop.port, hop.identities, hop.identities_only, hop.known_as) == ("bob", 22, ("k",), True, "rack")


def test_includes_are_part_of_the_block_that_includes_them(tmp_path: Path) -> None:
    (tmp_path / "one.conf").write_text("User included\nHost other\n  User other\n")
    text = f"Host n1\n  Include {tmp_path}/*.conf\n  Port 2200\nHost *\n  User last\n"
    (hop,) = way(tmp_path, text, Machine("n1", "n1"))
    assert (hop.user, hop.port) == ("included", 2200)
    (hop,) = way(tmp_path, text, Machine("n2", "n2"))
    assert (hop.user, hop.port) == ("last", 22)


def test_an_include_that_includes_itself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="too many levels"):
        way(tmp_path, f"Include {tmp_path}/config\n", Machine("n1", "n1"))


def test_match_blocks_hold_for_whom_they_match(tmp_path: Path) -> None:
    text = "Match host n1 user ann\n  Port 2200\n"
    (hop,) = way(tmp_path, f"Host *\n  User ann\n{text}", Machine("n1", "n1"))
    assert hop.port == 2200


def test_a_chain_of_jumps_is_gone_in_order(tmp_path: Path) -> None:
    text = "Host b1\n  HostName 10.0.0.1\n  ProxyJump b0\nHost n1\n  ProxyJump b1,ann@b2:2222\n"
    hops = way(tmp_path, text, Machine("n1", "n1"))
    assert [(hop.address, hop.port) for hop in hops] == [("b0", 22), ("10.0.0.1", 22), ("b2", 2222), ("n1", 22)]
    assert hops[2].user == "ann"


def test_a_machines_own_jump_replaces_that_of_the_configuration(tmp_path: Path) -> None:
    text = "Host n1\n  ProxyJump b1\n"
    assert [hop.address for hop in way(tmp_path, text, Machine("n1", "n1", ssh=Ssh(jump="b2")))] == ["b2", "n1"]
    assert [hop.address for hop in way(tmp_path, text, Machine("n1", "n1", ssh=Ssh(jump="none")))] == ["n1"]


def test_a_jump_over_oneself_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="more than 8 jumps"):
        way(tmp_path, "Host b1\n  ProxyJump b1\nHost n1\n  ProxyJump b1\n", Machine("n1", "n1"))
