"""The folders of virtual machines, with what no two of them may share."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from machine.drivers.qemu.folders import Folders
from machine.drivers.qemu.options import Options
from machine.drivers.qemu.vm import LOOPBACK, Vm, free_address, mac_of, segment_of
from shoal.errors import Exhausted


def vm(folders: Folders, name: str, port: int) -> Vm:
    made = Vm(name, Options(), port, "192.168.213.2/24", "", "SHA256:x")
    folders.of(name).path.mkdir(parents=True)
    folders.of(name).save(made)
    return made


def test_a_machine_that_was_half_made_is_none_and_goes(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    (tmp_path / ".vm1.new").mkdir()
    (tmp_path / ".vm2.gone").mkdir()
    assert folders.of("vm1").read() is None
    with folders.locked():
        folders.remove("vm1")
    assert list(tmp_path.iterdir()) == []


def test_a_machine_is_removed_wholly_and_again(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    vm(folders, "vm1", 1)
    for _ in range(2):
        with folders.locked():
            folders.remove("vm1")
    assert list(tmp_path.iterdir()) == []


def test_a_port_that_somebody_took_meanwhile_is_changed_and_kept(tmp_path: Path) -> None:
    folders = Folders(tmp_path)
    with socket.create_server((LOOPBACK, 0)) as taken:
        before = vm(folders, "vm1", taken.getsockname()[1])
        with folders.locked():
            after = folders.with_free_port(before)
    assert after.port != before.port
    assert folders.of("vm1").read() == after


def test_addresses_are_the_first_that_are_free_until_there_are_none() -> None:
    given: list[str] = []
    with pytest.raises(Exhausted):
        while True:
            given.append(free_address(given))
    assert given[0] == "192.168.213.2/24"
    assert len(given) == len(set(given)) == 253
    given.remove("192.168.213.7/24")
    assert free_address(given) == "192.168.213.7/24"


def test_hardware_addresses_go_with_addresses() -> None:
    found = {mac_of(f"192.168.213.{n}/24", of_way=way) for n in range(2, 255) for way in (True, False)}
    assert len(found) == 2 * 253
    # Of nobody in particular, and not a group's.
    assert all(int(each[:2], 16) & 3 == 2 for each in found)


def test_machines_of_two_folders_do_not_hear_each_other() -> None:
    assert segment_of(Path("/a")) == segment_of(Path("/a")) != segment_of(Path("/b"))
