"""Which devices a container may open: one list of rules, as text for v1 and as a BPF program for v2.

The default denies everything but what every container has (null, zero, full, random, urandom, tty, console, ptmx, pts),
as docker does. Programs are loaded once per policy and attached to each group; the caller keeps the descriptor.
"""

from __future__ import annotations

import ctypes
import os
import struct
from functools import lru_cache
from itertools import groupby
from operator import itemgetter

from agent.kernel import syscalls
from agent.runtime.cgroups.base import DeviceRule

_ALWAYS = tuple(
    DeviceRule(True, kind, major, minor, access)
    for kind, major, minor, access in (
        ("c", -1, -1, "m"),
        ("b", -1, -1, "m"),
        ("c", 1, 3, "rwm"),
        ("c", 1, 5, "rwm"),
        ("c", 1, 7, "rwm"),
        ("c", 1, 8, "rwm"),
        ("c", 1, 9, "rwm"),
        ("c", 5, 0, "rwm"),
        ("c", 5, 1, "rwm"),
        ("c", 5, 2, "rwm"),
        ("c", 136, -1, "rwm"),
    )
)
_KINDS = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_*
_ACCESS = {"m": 1, "r": 2, "w": 4}  # BPF_DEVCG_ACC_*
_BPF_PROG_LOAD, _BPF_PROG_ATTACH = 5, 8
_PROG_TYPE_CGROUP_DEVICE, _CGROUP_DEVICE, _ALLOW_MULTI = 15, 6, 2


@lru_cache(maxsize=64)  # most containers have the same
def policy(rules: tuple[DeviceRule, ...]) -> tuple[DeviceRule, ...] | None:
    """The full policy for the rules of a config, or None when everything is allowed (a privileged container). What a
    later rule makes needless is left out: each is a system call where the host has cgroup v1."""
    first, later = DeviceRule(False, "a", -1, -1, "rwm"), list[DeviceRule]()
    for rule in reversed(rules):
        if rule.kind == "a" and rule.major == rule.minor == -1 and set("rwm") <= set(rule.access):
            first = rule
            break
        if rule not in _ALWAYS:
            later.insert(0, rule)
    if first.allow and all(rule.allow for rule in later):
        return None
    return (first, *later, *_ALWAYS)


@lru_cache(maxsize=64)
def v1_lines(rules: tuple[DeviceRule, ...]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """(file, its lines) to write, in order."""
    lines = (("devices.allow" if rule.allow else "devices.deny", _line(rule)) for rule in rules)
    return tuple((file, tuple(line for _, line in each)) for file, each in groupby(lines, key=itemgetter(0)))


def _line(rule: DeviceRule) -> str:
    if rule.kind == "a":
        return "a"
    numbers = ":".join("*" if number < 0 else str(number) for number in (rule.major, rule.minor))
    return f"{rule.kind} {numbers} {rule.access}"


def _instruction(code: int, target: int, source: int, offset: int, constant: int) -> bytes:
    return struct.pack("<BBhi", code, target | source << 4, offset, constant)


def bpf(rules: tuple[DeviceRule, ...]) -> bytes:
    """The program: rules from the last to the first, the first that matches decides; nothing matches: refused.

    r2 type, r3 access, r4 major, r5 minor of struct bpf_cgroup_dev_ctx.
    """
    code = [
        _instruction(0x61, 2, 1, 0, 0),
        _instruction(0xBF, 3, 2, 0, 0),
        _instruction(0x57, 2, 0, 0, 0xFFFF),
        _instruction(0x77, 3, 0, 0, 16),
        _instruction(0x61, 4, 1, 4, 0),
        _instruction(0x61, 5, 1, 8, 0),
    ]
    for rule in reversed(rules):
        body: list[tuple[int, int, int, int]] = []  # code, target, source, constant; jumps go past the rule
        if rule.kind != "a":
            body.append((0x55, 2, 0, _KINDS[rule.kind]))
        access = sum(_ACCESS[letter] for letter in set(rule.access))
        if access != 7:
            body += [(0xBF, 1, 3, 0), (0x57, 1, 0, ~access & 7 if rule.allow else access)]
            body.append((0x55 if rule.allow else 0x15, 1, 0, 0))
        body += [(0x55, register, 0, number) for register, number in ((4, rule.major), (5, rule.minor)) if number >= 0]
        body += [(0xB7, 0, 0, int(rule.allow)), (0x95, 0, 0, 0)]
        for index, (operation, target, source, constant) in enumerate(body):
            offset = len(body) - index - 1 if operation in (0x55, 0x15) else 0
            code.append(_instruction(operation, target, source, offset, constant))
        if len(body) == 2:  # it matches everything; the verifier refuses code that nothing reaches
            return b"".join(code)
    code += [_instruction(0xB7, 0, 0, 0, 0), _instruction(0x95, 0, 0, 0, 0)]
    return b"".join(code)


def load(rules: tuple[DeviceRule, ...]) -> int:
    """Load the policy into the kernel; returns a descriptor. Raises OSError where BPF is not to be had."""
    code = ctypes.create_string_buffer(bpf(rules))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    attributes = struct.pack(
        "<IIQQ", _PROG_TYPE_CGROUP_DEVICE, (len(code) - 1) // 8, ctypes.addressof(code), ctypes.addressof(licence)
    )
    fd = syscalls.call("bpf", _BPF_PROG_LOAD, attributes, len(attributes))
    os.set_inheritable(fd, False)
    return fd


def attach(program: int, group_fd: int) -> None:
    """Put a loaded policy on a v2 group, beside whatever its ancestors have."""
    attributes = struct.pack("<IIII", group_fd, program, _CGROUP_DEVICE, _ALLOW_MULTI)
    syscalls.call("bpf", _BPF_PROG_ATTACH, attributes, len(attributes))
