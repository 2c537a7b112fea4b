"""One container's group across the host's hierarchies: create with limits, join, freeze, kill, remove.

`Groups` holds what is per host (the layout, loaded device policies); a `Group` is cheap and can be rebuilt from its
name and the v1 controllers it joined, which is what a container's record keeps.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from agent.runtime.cgroups import base, devices, realtime, v1, v2
from agent.runtime.cgroups.base import DeviceRule, Layout, Limits
from agent.runtime.cgroups.usage import Usage, usage
from agent.runtime.failure import Failure

_ON_V2 = {"memory", "pids", "cpu"}  # joined wherever v2 serves them: reports of OOM and statistics cost nothing there


class CgroupMount(NamedTuple):
    """What a container sees below /sys/fs/cgroup: at `directory` ("" for itself) a `kind` with `options`.

    `path` is the group's own directory on the host: what is shown where no cgroup namespace hides the rest.
    """

    directory: str
    kind: str
    options: str
    path: str = ""


class Line(NamedTuple):
    """One value for one control file. `optional`: the file may be missing. `instead` is written where it is, or where
    the file is not for what the value names."""

    path: str
    value: str
    optional: bool = False
    instead: tuple[str, str] | None = None

    def write(self) -> None:
        try:
            base.write(self.path, self.value)
        except OSError as error:
            if self.instead and error.errno in (errno.ENOENT, errno.EOPNOTSUPP):
                base.write(*self.instead)
            elif not (self.optional and error.errno == errno.ENOENT):
                raise


class Groups:
    """The host's hierarchies and the device policies loaded so far. Threads may share it.

    `lends`: the groups above a container's are ours, and get the real-time that it takes."""

    def __init__(self, layout: Layout | None = None, *, lends: bool = False) -> None:
        self.layout = layout if layout is not None else base.detect()
        if not self.layout.v2 and "devices" not in self.layout.v1:
            raise Failure(
                "Unsupported",
                "this host has neither cgroup v2 nor the v1 devices controller under /sys/fs/cgroup",
                "mount cgroup2 on /sys/fs/cgroup",
            )
        self._prepared: set[tuple[str, frozenset[str]]] = set()  # parents, and the controllers they hand down
        self._theirs: Groups | None = None
        self._lends = lends
        self._lending = threading.Lock()
        self._policies: dict[tuple[DeviceRule, ...], int] = {}
        self._has_bpf = bool(self.layout.v2)

    @property
    def theirs(self) -> Groups:
        """The hierarchies as another runtime uses them: all of v1 where there is v1, else v2."""
        if not self.layout.v1:
            return self
        if self._theirs is None:
            everything = {**self.layout.v1, **self.layout.named}
            self._theirs = Groups(self.layout._replace(v2="", v2_controllers=frozenset(), v1=everything))
        return self._theirs

    def create(self, name: str, limits: Limits, *, everywhere: bool = False) -> Group:
        """Make the group with its limits. On failure nothing is left; raises Failure naming the limit.

        `everywhere`: in all v1 hierarchies, where others than us look for it (`podman stats`, cAdvisor).
        """
        joined = self._needed(limits) | (set(self.layout.v1) if everywhere else set())
        policy = devices.policy(limits.devices)
        program = self._program(policy) if policy is not None else -1
        if not self.layout.v2 or (policy is not None and program < 0):
            joined.add("devices")
        group = Group(self.layout, name, joined)
        try:
            self._fill(group, limits, policy, program)
        except OSError as error:
            with contextlib.suppress(OSError, Failure):
                group.remove()
            raise Failure("StartFailed", f"cgroup {name}: {error.strerror} ({error.filename})") from error
        except Failure:
            with contextlib.suppress(OSError, Failure):
                group.remove()
            raise
        return group

    def find(self, name: str, controllers: Iterable[str]) -> Group:
        """The group that `create` made in another life."""
        return Group(self.layout, name, set(controllers))

    def widened(self, group: Group, limits: Limits) -> Group:
        """`group` with the v1 hierarchies that `limits` need besides; `change` makes it so. Raises Failure."""
        return Group(self.layout, group.name, {*group.controllers, *self._needed(limits)})

    def change(self, group: Group, limits: Limits) -> None:
        """Give a running group other limits; its device policy stays. Memory taken before its first limit is not
        counted on v1. Raises Failure naming the limit that the kernel refused; the others hold."""
        try:
            if self.layout.v2:
                v2.enable(self.layout.v2, group.name, (limits.controllers() | _ON_V2) & self.layout.v2_controllers)
            if limits.check_usage and 0 < limits.memory_bytes < group.usage().memory_bytes:
                raise Failure(
                    "Conflict", f"cgroup {group.name}: more memory than {limits.memory_bytes} bytes is in use"
                )
            for controller in group.controllers:
                if not os.path.isdir(group.v1(controller)):  # noqa: PTH112 - strings all around
                    v1.prepare(self.layout.v1[controller], group.name)
            with self._lent(group, limits):
                _write_all([*self._unlimited(group, limits), *self._settings(group, limits)])
            for controller in group.controllers:
                v1.gather(group.v1(controller), group.v2 or group.v1(controller))
        except OSError as error:
            raise Failure("Conflict", f"cgroup {group.name}: {error.strerror} ({error.filename})") from error

    @contextlib.contextmanager
    def _lent(self, group: Group, limits: Limits) -> Iterator[None]:
        """While its limits are written."""
        if not (self._lends and limits.realtime and "cpu" in group.controllers):
            yield
            return
        with self._lending:
            realtime.lend(self.layout.v1["cpu"].path, group.name, limits)
            yield

    def _needed(self, limits: Limits) -> set[str]:
        """The v1 hierarchies that these limits need, since v2 does not serve them here."""
        joined: set[str] = set()
        if limits.realtime and "cpu" in self.layout.v2_controllers:
            raise Failure("Unsupported", "the kernel keeps no real-time per container", "cgroup v2 never had it")
        if limits.swappiness is not None and "memory" in self.layout.v2_controllers:
            raise Failure("Unsupported", "the kernel keeps no swappiness per container", "it is gone from cgroup v2")
        if limits.oom_kill_disable and "memory" in self.layout.v2_controllers:
            raise Failure("Unsupported", "the kernel cannot disable the OOM killer here", "it is gone from cgroup v2")
        for controller in limits.controllers() - self.layout.v2_controllers:
            v1_name = base.V1_NAMES.get(controller, controller)
            if v1_name not in self.layout.v1:
                raise Failure(
                    "Unsupported",
                    f"a {controller} limit needs the {controller} cgroup controller",
                    "this host has none; drop the limit",
                )
            joined.add(v1_name)
        return joined

    def _unlimited(self, group: Group, limits: Limits) -> list[Line]:
        """What a limit that was taken away leaves: only the number of processes can lose its limit again."""
        if limits.pids:
            return []
        if "pids" in group.controllers:
            return [Line(f"{group.v1('pids')}/pids.max", "max")]
        return [Line(f"{group.v2}/pids.max", "max")] if "pids" in self.layout.v2_controllers else []

    def _settings(self, group: Group, limits: Limits) -> list[Line]:
        lines: list[Line] = []
        if self.layout.v2:
            lines += [
                Line(f"{group.v2}/{file}", value)
                for file, value in v2.settings(limits)
                if file.partition(".")[0] in self.layout.v2_controllers or (file, value) in limits.unified
            ]
        if "io" in self.layout.v2_controllers:
            lines += [
                Line(f"{group.v2}/io.bfq.weight", bfq, instead=(f"{group.v2}/io.weight", cost))
                for bfq, cost in v2.weights(limits)
            ]
        lines += [
            Line(f"{group.v1(setting.controller)}/{setting.file}", setting.value, setting.optional)
            for setting in v1.settings(limits)
            if setting.controller in group.controllers
        ]
        return lines

    def _fill(self, group: Group, limits: Limits, policy: tuple[DeviceRule, ...] | None, program: int) -> None:
        if self.layout.v2:
            self._make(group, (limits.controllers() | _ON_V2) & self.layout.v2_controllers)
            if program >= 0:
                fd = os.open(group.v2, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    devices.attach(program, fd)
                finally:
                    os.close(fd)
        elif limits.unified:
            raise Failure("Unsupported", "resources.unified needs cgroup v2", "this host has v1 only")
        for controller in group.controllers:
            v1.prepare(self.layout.v1[controller], group.name)
        with self._lent(group, limits):
            for line in self._settings(group, limits):
                line.write()
        if "devices" in group.controllers and policy is not None:
            for file, lines in devices.v1_lines(policy):
                base.write(f"{group.v1('devices')}/{file}", *lines)

    def _make(self, group: Group, controllers: frozenset[str] | set[str]) -> None:
        """Its v2 directory, with `controllers` on. What its parent has, is looked at once."""
        parent = (group.v2.rpartition("/")[0], frozenset(controllers))
        if parent in self._prepared:
            try:
                os.mkdir(group.v2)  # noqa: PTH102 - the hot path of a start
                return
            except FileExistsError:
                return
            except FileNotFoundError:
                self._prepared.discard(parent)  # somebody removed the parent
        v2.enable(self.layout.v2, group.name, set(controllers))
        base.make(group.v2)
        self._prepared.add(parent)

    def _program(self, policy: tuple[DeviceRule, ...]) -> int:
        if policy not in self._policies and self._has_bpf:
            try:
                self._policies[policy] = devices.load(policy)
            except OSError:
                self._has_bpf = False  # no CONFIG_CGROUP_BPF, or bpf(2) is forbidden here: v1 if there is one
                if "devices" not in self.layout.v1:
                    raise
        return self._policies.get(policy, -1)


def _write_all(lines: Iterable[Line]) -> None:
    """In order; what is refused is tried once more, since a limit may have to wait until its neighbour is higher."""
    refused: list[Line] = []
    for line in lines:
        try:
            line.write()
        except OSError:
            refused.append(line)
    for line in refused:
        line.write()


class Group:
    """A container's place. `controllers` are the v1 hierarchies it joined."""

    def __init__(self, layout: Layout, name: str, controllers: set[str]) -> None:
        self.name = name
        self.controllers = tuple(sorted(controllers))
        self._layout = layout

    @property
    def v2(self) -> str:
        """Its directory in the v2 hierarchy, "" without one."""
        return f"{self._layout.v2}/{self.name}" if self._layout.v2 else ""

    def v1(self, controller: str) -> str:
        return f"{self._layout.v1[controller].path}/{self.name}"

    @property
    def _reference(self) -> str:
        return self.v2 or self.v1(self.controllers[0])

    def open(self) -> tuple[int, list[int]]:
        """(directory for CLONE_INTO_CGROUP or -1, `tasks` files to write "0" to). The caller closes them."""
        directory = os.open(self.v2, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if self.v2 else -1
        tasks = [os.open(f"{self.v1(name)}/tasks", os.O_WRONLY | os.O_CLOEXEC) for name in self.controllers]
        return directory, tasks

    def mounts(self) -> tuple[CgroupMount, ...]:
        """What to show inside: the unified hierarchy alone when nothing else was joined, as on a v2 host."""
        shown = [name for name in self.controllers if name != "devices"]
        if self.v2 and not shown:
            return (CgroupMount("", "cgroup2", ""),)
        mounts = [CgroupMount(name, "cgroup", self._layout.v1[name].options, self.v1(name)) for name in shown]
        if self.v2:
            mounts.append(CgroupMount("unified", "cgroup2", "", self.v2))
        return tuple(mounts)

    def pids(self) -> list[int]:
        return base.members(self._reference)

    def usage(self) -> Usage:
        return usage(self.v2, {name: self.v1(name) for name in self.controllers}, self.pids())

    def oom_kills(self) -> int:
        if "memory" in self.controllers:
            return v1.oom_kills(self.v1("memory"))
        return v2.oom_kills(self.v2) if "memory" in self._layout.v2_controllers else 0

    @property
    def frozen(self) -> bool:
        """Whether it is frozen, or about to be."""
        if self.v2:
            return base.text(f"{self.v2}/cgroup.freeze") == "1"
        return "freezer" in self._layout.v1 and base.text(f"{self.v1('freezer')}/freezer.state") in (
            "FROZEN",
            "FREEZING",
        )

    def freeze(self) -> None:
        if self.v2:
            v2.set_frozen(self.v2, frozen=True)
        elif "freezer" in self._layout.v1:
            v1.freeze(self.v1("freezer"), self._reference)
        else:
            raise Failure("Unsupported", "pause needs cgroup v2 or the v1 freezer controller")

    def thaw(self) -> None:
        if self.v2:
            v2.set_frozen(self.v2, frozen=False)
        elif "freezer" in self._layout.v1:
            v1.thaw(self.v1("freezer"))

    def kill(self) -> None:
        """SIGKILL whatever is inside, frozen or not."""
        if not self._exists():
            return
        if not (self.v2 and v2.kill(self.v2)):
            while pids := self.pids():
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                self.thaw()
                if self.pids() == pids:
                    break  # dying already; `remove` waits for them
        self.thaw_quietly()

    def thaw_quietly(self) -> None:
        """Killed v1 processes die only when thawed; v2 needs no help, and may be gone already."""
        if not self.v2:
            with contextlib.suppress(OSError, Failure):
                self.thaw()

    def remove(self) -> None:
        """Remove the directories; waits for dying processes. Idempotent."""
        self._give_back()
        base.remove_tree(self._directories())

    def removed_at_once(self) -> bool:
        """As `remove`, without waiting: False when somebody is in it still."""
        self._give_back()
        return base.removed_at_once(self._directories())

    def _give_back(self) -> None:
        if "cpu" in self.controllers:
            realtime.give_back(self.v1("cpu"))

    def _directories(self) -> list[str]:
        paths = [self.v1(name) for name in self.controllers]
        if self.v2:
            return [*paths, self.v2]
        return [*paths, self.v1("freezer")] if "freezer" in self._layout.v1 else paths

    def _exists(self) -> bool:
        return os.path.isdir(self._reference)  # noqa: PTH112 - a path in a hot loop of strings
