"""The rack: hosts of the lab that faults can happen to. Each has a small disk of its own for its data (a loop mount), a
clock that can be shifted, and the machine id of all others, as hosts that were cloned have."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.cluster.chaos.fault import Fault
from tests.cluster.conftest import PROJECT, Lab, eventually

DISKS = Path("/var/lib/shoal-lab")
DISK_MIB = 512  # etcd lays out 64 MiB for its log in advance, the next one beside it, and keeps two
PATTERNS = {
    "agent": "bin/shoal-agent",
    "manager": "bin/shoal-manager",
    "keeper": "agent.runtime.daemon",
    "holder": "agent.runtime.holder",
    "resolver": "dns/resolver.py",
    "etcd": "^[^ ]*etcd ",
}
_FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
_SHIFT = "/run/clock"  # gone when the host boots: then its clock is right again
# The monotonic clock stays true: a host's wall clock is what an operator, or a bad NTP server, sets wrong.
_ENVIRONMENT = (
    f"LD_PRELOAD={_FAKETIME}\nFAKETIME_TIMESTAMP_FILE={_SHIFT}\nFAKETIME_CACHE_DURATION=1\n"
    "FAKETIME_DONT_FAKE_MONOTONIC=1\nDONT_FAKE_MONOTONIC=1\n"
)


class Rack:
    """`hosts` of them, n1…; `managers` of them are managers once the cluster is formed. What shifts `clocks` takes
    most of a daemon's processor time, so whoever leaves them alone does without."""

    def __init__(self, lab: Lab, *, hosts: int, managers: int, clocks: bool = True) -> None:
        self.lab = lab
        self._clocks = clocks and _FAKETIME is not None
        self.hosts = [f"n{number}" for number in range(1, hosts + 1)]
        self.managers = self.hosts[:managers]

    def up(self) -> None:
        machine_id = os.urandom(16).hex() + "\n"
        for host in self.hosts:
            disk = DISKS / self.lab.name / host
            (disk / "shoal").mkdir(parents=True)
            (disk / "machine-id").write_text(machine_id)
            image = disk / "disk"
            with image.open("wb") as file:
                file.truncate(DISK_MIB << 20)
            for argv in (
                ("mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", image),
                ("mount", "-o", "loop", image, disk / "shoal"),
            ):
                subprocess.run(argv, check=True)
        self.lab("up", str(len(self.hosts)))
        if self._clocks:
            for host in self.hosts:
                self.lab.on(
                    host, "sh", "-c", f"echo +0s > {_SHIFT}; cat > /etc/default/shoal-agent", stdin=_ENVIRONMENT
                )
                self.lab.kill_9(host, PATTERNS["agent"])

    def down(self) -> None:
        for host in self.hosts:
            with contextlib.suppress(AssertionError):
                self.lab("kill", host)
            disk = DISKS / self.lab.name / host / "shoal"
            if disk.is_mount():
                subprocess.run(["umount", "--lazy", str(disk)], check=True)
        self.lab("down")

    def socket(self, host: str) -> str:
        """Where the host's agent is reached from this machine. Raises OSError for a host that is off."""
        pid = int(self._pid_file(host).read_text())
        return f"unix:/proc/{pid}/root/run/shoal/shoal.sock"

    async def happen(self, fault: Fault) -> None:
        """Begin the fault at its time and end it after its duration, also when this is cancelled."""
        await asyncio.sleep(fault.at_s)
        await asyncio.to_thread(self._begin, fault)
        try:
            await asyncio.sleep(fault.for_s)
        finally:
            # In a thread, as its begin: it may wait for a manager, which may wait for the end of another fault.
            await asyncio.to_thread(self._end, fault)

    def _begin(self, fault: Fault) -> None:
        match fault.kind:
            case "kill":
                self._signal(fault.host, fault.what, "-KILL")
            case "freeze":
                self._signal(fault.host, fault.what, "-STOP")
            case "power":
                self.lab("kill", fault.host)
            case "unplug":
                self.lab("cut", fault.host, check=False)  # the host may be off already
            case "deaf":
                self._drop(fault.host, fault.other, fault.port)
            case "apart":
                self._drop(fault.host, fault.other)
                self._drop(fault.other, fault.host)
            case "fill":
                self._fill(fault.host)
            case "clock":
                self._shift(fault.host, f"{int(fault.what):+d}s")
            case "drain":
                self._make(fault.host, "drain")

    def _end(self, fault: Fault) -> None:
        match fault.kind:
            case "freeze":
                self._signal(fault.host, fault.what, "-CONT")
            case "power":
                self.lab("start", fault.host)
            case "unplug":
                self.lab("heal", fault.host, check=False)
            case "deaf":
                self._hear(fault.host, fault.other, fault.port)
            case "apart":
                self._hear(fault.host, fault.other)
                self._hear(fault.other, fault.host)
            case "fill":
                (self._disk(fault.host) / "ballast").unlink(missing_ok=True)
            case "clock":
                self._shift(fault.host, "+0s")
            case "drain":
                self._make(fault.host, "active")
            case _:
                pass

    def _signal(self, host: str, daemon: str, signal: str) -> None:
        for pid in self.lab.pids(host, PATTERNS[daemon]):
            self.lab.on(host, "kill", signal, pid)

    def _drop(self, host: str, other: str, port: str = "") -> None:
        """Let `host` hear nothing of `other`, or nothing that is sent to `port`: a table of the rack's own, which the
        agent does not know."""
        which = f"tcp dport {port} " if port else ""
        rule = f"ip saddr {self.lab.addresses[other]} {which}drop"
        table = f"table inet chaos_{other}_{port}"
        self._nft(host, f"{table} {{ chain input {{ type filter hook input priority -400; {rule}; }}; }}")

    def _hear(self, host: str, other: str, port: str = "") -> None:
        table = f"table inet chaos_{other}_{port}"
        self._nft(host, f"add {table}; delete {table}")  # a host that booted meanwhile has none

    def _nft(self, host: str, text: str) -> None:
        """A host that is off is deaf and dumb anyway."""
        done = self.lab.on(host, "nft", "-f", "-", stdin=f"{text}\n")
        assert done.returncode == 0 or not self._pid_file(host).exists(), done.stderr

    def _fill(self, host: str) -> None:
        """To the last block, in ever smaller parts."""
        with (self._disk(host) / "ballast").open("wb", buffering=0) as ballast:
            end = 0
            for part in (64 << 20, 1 << 20, 4 << 10):
                with contextlib.suppress(OSError):
                    while True:
                        os.posix_fallocate(ballast.fileno(), end, part)
                        end += part

    def _shift(self, host: str, shift: str) -> None:
        self.lab.on(host, "sh", "-c", f"echo {shift} > {_SHIFT}")

    def _make(self, host: str, availability: str) -> None:
        """Through whichever manager takes it."""
        argv = ("timeout", "10", "shoal", "node", "update", "--availability", availability, host)
        eventually(
            lambda: any(self.lab.on(manager, *argv).returncode == 0 for manager in self.managers),
            what=f"{host} is made {availability}",
        )

    def _pid_file(self, host: str) -> Path:
        """There while the host is up."""
        return Path("/run/shoal-lab") / self.lab.name / host / "pid"

    def _disk(self, host: str) -> Path:
        return DISKS / self.lab.name / host / "shoal"


@contextlib.contextmanager
def racked(name: str, *, hosts: int, managers: int, clocks: bool = True) -> Iterator[Rack]:
    """A rack that is gone afterwards, whatever happened."""
    rack = Rack(Lab(name), hosts=hosts, managers=managers, clocks=clocks)
    try:
        rack.up()
        yield rack
    except BaseException:
        kept = PROJECT / "build/chaos" / name
        shutil.rmtree(kept, ignore_errors=True)
        for host in (DISKS / name).glob("*"):
            (kept / host.name).mkdir(parents=True)
            for log in (*host.glob("log/*"), *host.glob("shoal/*.log*")):
                shutil.copy(log, kept / host.name)
        print(f"what the daemons said is kept in {kept}")
        raise
    finally:
        rack.down()
