"""Boot: the process behind the switch of one host (`rack` starts it). It makes the host's namespaces and is the parent
of its PID 1; while it lives the host has power, and a host that says so is booted again. Ends with 0 when the host
turned itself off, with 1 when its PID 1 ended otherwise.

    python -m machine.drivers.local.boot RACK RUN DISK HOMES HOST POWER

POWER is the descriptor of the lock that whoever started it took.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from machine.drivers.local import cgroup, kernel, root
from machine.drivers.local.rack import Host, Rack

_OF_A_HOST = kernel.NEWNS | kernel.NEWUTS | kernel.NEWIPC | kernel.NEWNET | kernel.NEWCGROUP


def main() -> None:
    name, run, disk, homes, host, power = sys.argv[1:]
    rack = Rack(name, Path(run), disk=Path(disk), homes=Path(homes))
    # It is let go of when this process ends, and by no child of it.
    os.set_inheritable(int(power), False)
    os.write(int(power), str(os.getpid()).encode())
    # Not that of whoever started us: their end would be the host's.
    cgroup.make(f"{rack.cgroup}/_power")
    cgroup.join(f"{rack.cgroup}/_power")
    while (ended_by := _run(rack, rack.get(host))) == signal.SIGHUP:
        """It reboots."""
    sys.exit(ended_by != signal.SIGINT)


def _run(rack: Rack, host: Host) -> int:
    """From one boot to its end; the signal that ended its PID 1, or 0. What reboot(2) makes of a pid namespace's end is
    SIGHUP where it is to begin anew, and SIGINT where it is not."""
    group = f"{rack.cgroup}/{host.name}"
    cgroup.make(group)
    cgroup.limit(group, memory_bytes=host.memory_bytes, cpus=host.cpus)
    ours, theirs = socket.socketpair()
    pid = _fork()
    if pid == 0:
        ours.close()
        _become(rack, host, theirs)
    theirs.close()
    with ours:
        if ours.recv(1):
            rack.underlay.plug(host.address, pid)
            ours.send(b"!")
            _write_pid(rack.pid_file(host.name), pid)
    _, status = os.waitpid(pid, 0)
    rack.pid_file(host.name).unlink(missing_ok=True)
    cgroup.remove(group)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0


def _fork() -> int:
    """A child that is the first process of a pid namespace; our other children are not in it."""
    own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    try:
        kernel.unshare(kernel.NEWPID)
        pid = os.fork()
        if pid:
            kernel.enter(own, kernel.NEWPID)
        return pid
    finally:
        os.close(own)


def _become(rack: Rack, host: Host, parent: socket.socket) -> NoReturn:
    """PID 1 of the host."""
    try:
        kernel.die_with_parent(signal.SIGKILL)
        cgroup.join(f"{rack.cgroup}/{host.name}")
        kernel.unshare(_OF_A_HOST)
        kernel.name_host(host.name)
        parent.send(b"!")
        root.enter(rack, host)
        if not parent.recv(1):
            raise ConnectionError("there is no cable")
        parent.close()
        # Python ignores it, and what it executes would inherit that.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        os.execve(host.init[0], list(host.init), dict(host.environment))
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _write_pid(path: Path, pid: int) -> None:
    fresh = path.with_name(".pid")
    fresh.write_text(str(pid))
    fresh.rename(path)


if __name__ == "__main__":
    main()
