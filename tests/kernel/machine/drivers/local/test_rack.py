"""Hosts inside this machine without what makes nodes of them: a busybox is all that there is of their tree."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from machine.drivers.local.rack import Host, Rack
from shoal.errors import Conflict, NotFound, ShoalError, Unavailable

LIVE = "exec sleep 1000000"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for folder in ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var/lib"):
        (root / folder).mkdir(parents=True)
    (root / "bin/busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (root / "bin/busybox").chmod(0o755)
    return root


@pytest.fixture
def rack(tmp_path: Path) -> Iterator[Rack]:
    name = f"k{os.getpid() % 10000}"
    homes = tmp_path / "hosts"
    rack = Rack(name, Path("/run/shoal-local") / name, disk=homes, homes=homes)
    homes.mkdir()
    try:
        yield rack
    finally:
        rack.dismantle()


def make(rack: Rack, tree: Path, name: str, script: str = LIVE) -> Host:
    """A host whose PID 1 is a script, recorded and down."""
    init = ["/bin/busybox", "sh", "-c", f"/bin/busybox --install -s /bin; PATH=/bin; {script}"]
    host = Host(name, rack.free_address(), "0" * 32, str(tree), init, {"PATH": "/bin"}, {"var/lib/shoal": "shoal"})
    rack.save(host)
    return host


def on(rack: Rack, name: str, *argv: str) -> str:
    flags = ["--mount", "--uts", "--net", "--pid", "--cgroup"]
    words = ["nsenter", "--target", str(rack.pid(name)), *flags, "--", "/bin/busybox", *argv]
    return subprocess.run(words, capture_output=True, text=True).stdout


def eventually(claim: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not claim():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_host_keeps_what_it_wrote_and_reaches_another_one(rack: Rack, tree: Path) -> None:
    one, two = make(rack, tree, "one"), make(rack, tree, "two")
    for host in (one, two):
        rack.boot(host)
    assert [on(rack, name, "hostname") for name in ("one", "two")] == ["one\n", "two\n"]
    assert "1 packets received" in on(rack, "one", "ping", "-c", "1", "-W", "30", two.address)
    on(rack, "one", "touch", "/root/tree", "/var/lib/shoal/disk", "/run/letter")
    boot = on(rack, "one", "cat", "/proc/sys/kernel/random/boot_id")
    with pytest.raises(Conflict, match="one is up already"):
        rack.boot(one)
    rack.kill("one")
    rack.boot(one)
    assert (
        on(rack, "one", "ls", "/root", "/var/lib/shoal", "/run").split()
        == "/root: tree /run: /var/lib/shoal: disk".split()
    )
    assert on(rack, "one", "cat", "/proc/sys/kernel/random/boot_id") not in ("", boot)


def test_a_host_that_reboots_is_booted_and_one_that_powers_off_is_down(rack: Rack, tree: Path) -> None:
    script = "cd /root; [ -e second ] && poweroff -f; if [ -e first ]; then touch second; else touch first; fi; "
    rack.boot(make(rack, tree, "one", f"{script} [ -e second ] || reboot -f; {LIVE}"))
    eventually(lambda: (rack.home("one") / "upper/root/second").exists() and rack.alive("one"))
    rack.kill("one")
    rack.boot(rack.get("one"))
    eventually(lambda: not rack.alive("one"))
    with pytest.raises(Unavailable, match="one is down"):
        rack.pid("one")


def test_a_host_dies_with_whoever_has_its_power_and_boots_again(rack: Rack, tree: Path) -> None:
    host = make(rack, tree, "one")
    rack.boot(host)
    pid = rack.pid("one")
    os.kill(int((rack.run / "one/power").read_text()), signal.SIGKILL)
    eventually(lambda: not rack.alive("one") and not Path(f"/proc/{pid}").exists())
    rack.boot(host)
    assert rack.pid("one") != pid


def test_a_host_that_cannot_boot_says_why(rack: Rack, tree: Path) -> None:
    host = make(rack, tree, "one")._replace(init=["/bin/nothing"])
    rack.save(host)
    with pytest.raises(ShoalError, match=r"does not boot|is down"):
        rack.boot(host)
        eventually(lambda: not rack.alive("one"))
        rack.pid("one")
    assert "/bin/nothing" in rack.log("one").read_text()


def test_no_address_is_given_twice_while_others_are_left(rack: Rack, tree: Path) -> None:
    subnet = rack.underlay.make()
    assert [make(rack, tree, name).address for name in ("one", "two")] == [f"{subnet}.11", f"{subnet}.12"]
    rack.remove("two")
    assert rack.find("two") is None
    assert make(rack, tree, "three").address == f"{subnet}.13"
    (rack.disk / "address").write_text("254")
    assert make(rack, tree, "four").address == f"{subnet}.12"
    with pytest.raises(NotFound, match="there is no host two; there are: one, four, three"):
        rack.get("two")


def test_a_subnet_is_a_racks_until_its_folder_is_gone(rack: Rack, tmp_path: Path) -> None:
    subnet = rack.underlay.make()
    assert rack.underlay.make() == subnet
    other = Rack(f"{rack.name}o", tmp_path / "run", disk=tmp_path / "other", homes=tmp_path / "other")
    other.disk.mkdir()
    try:
        assert other.underlay.make() != subnet
    finally:
        other.dismantle()
    assert not other.disk.exists()


def test_a_host_that_boots_when_it_is_asked_for_again_boots_once(rack: Rack, tree: Path) -> None:
    host = make(rack, tree, "one")
    rack.boot(host)
    power = (rack.run / "one/power").read_text()
    # As it is for who was killed just behind the switch: the host has power, and nobody knows its PID 1 yet.
    rack.pid_file("one").unlink()
    with pytest.raises(Conflict, match="one is up already"):
        rack.boot(host)
    assert rack.powered("one") and (rack.run / "one/power").read_text() == power
    rack.kill("one")
    assert not rack.powered("one")
    rack.boot(host)
    assert rack.alive("one")
