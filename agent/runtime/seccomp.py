"""Compiles an OCI seccomp profile to a BPF filter: ranges of call numbers found by binary search.

A call costs about 9 steps where libseccomp's default layout takes 300, and the filter is a quarter of its size, which
is what its installation costs. Compiled filters are kept per profile. Calls that this build does not know, newer than
its table, answer ENOSYS where the profile would refuse them, so that libc falls back; x32 calls get the default action.
"""

from __future__ import annotations

import json
import struct
from functools import lru_cache
from typing import Any, NamedTuple

from agent.kernel.numbers import newest, numbers_of
from agent.kernel.syscalls import MACHINE
from agent.runtime.profile import SharedProfile

_ARCHITECTURES = {
    "SCMP_ARCH_X86_64": ("x86_64", 0xC000003E),
    "SCMP_ARCH_X86": ("i386", 0x40000003),
    "SCMP_ARCH_AARCH64": ("aarch64", 0xC00000B7),
}
_NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}[MACHINE]
_RUNS_HERE = {"x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86"), "aarch64": ("SCMP_ARCH_AARCH64",)}[MACHINE]
_ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_FLAGS = {"SECCOMP_FILTER_FLAG_TSYNC": 0, "SECCOMP_FILTER_FLAG_LOG": 2, "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4}
_ENOSYS = 38
_KILL_PROCESS = 0x80000000

_LOAD, _AND, _JA, _JEQ, _JGT, _JGE, _RET = 0x20, 0x54, 0x05, 0x15, 0x25, 0x35, 0x06
_WORD = (1 << 32) - 1

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, constant


class Filter(NamedTuple):
    """A compiled filter: `code` is an array of struct sock_filter, `flags` are seccomp(2)'s."""

    code: bytes
    flags: int

    @property
    def length(self) -> int:
        return len(self.code) // 8


class Comparison(NamedTuple):
    """One test of an argument, in OCI's words."""

    argument: int
    op: str
    value: int
    value_two: int


class Leaf(NamedTuple):
    """What to do with a call: the first of `rules` whose tests all hold decides, else `otherwise`."""

    rules: tuple[tuple[tuple[Comparison, ...], int], ...]
    otherwise: int


def vocabulary() -> dict[str, list[str]]:
    """What a profile may say, in the words of the specification's features."""
    operators = [f"SCMP_CMP_{name}" for name in ("EQ", "NE", "MASKED_EQ", "GT", "GE", "LT", "LE")]
    return {
        "actions": list(_ACTIONS),
        "operators": operators,
        "archs": list(_ARCHITECTURES),
        "knownFlags": list(_FLAGS),
        "supportedFlags": list(_FLAGS),
    }


def compile_profile(profile: dict[str, Any]) -> Filter:
    """The filter for an OCI `linux.seccomp` value. Raises ValueError for what it cannot express."""
    if isinstance(profile, SharedProfile):  # to write down 350 names takes longer than anything else here
        return _compile_shared(profile)
    return _compile(json.dumps(profile, sort_keys=True))


@lru_cache(maxsize=128)
def _compile_shared(profile: SharedProfile) -> Filter:
    return _compile(json.dumps(profile, sort_keys=True))


@lru_cache(maxsize=128)
def _compile(text: str) -> Filter:
    profile = json.loads(text)
    unknown = set(profile) - {"defaultAction", "defaultErrnoRet", "architectures", "syscalls", "flags"}
    if unknown:
        raise ValueError(f"seccomp profile: {', '.join(sorted(unknown))} is not supported")
    flags = 0
    for flag in profile.get("flags", ()):
        if flag not in _FLAGS:
            raise ValueError(f"seccomp profile: flag {flag} is not supported")
        flags |= _FLAGS[flag]
    default = _action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    wanted = profile.get("architectures") or [_NATIVE]
    sections = [
        (_ARCHITECTURES[name][1], _unforeseen(name) + _section(profile, numbers_of(_ARCHITECTURES[name][0]), default))
        for name in _RUNS_HERE
        if name in wanted or name == _NATIVE
    ]
    code: list[Instruction] = [(_LOAD, 0, 0, 4)]
    for audit_arch, section in sections:
        code += [(_JEQ, 1, 0, audit_arch), (_JA, 0, 0, len(section)), *section]
    code.append((_RET, 0, 0, _KILL_PROCESS))  # an architecture that the profile does not name
    if len(code) > 4096:
        raise ValueError(f"seccomp profile: {len(code)} instructions are more than the kernel's 4096")
    return Filter(b"".join(struct.pack("<HBBI", *instruction) for instruction in code), flags)


def _unforeseen(architecture: str) -> list[Instruction]:
    """For one that is rarely run, have the kernel not find out at each start what every one of its calls comes to: it
    does so for what depends on nothing but the number (kernel/seccomp.c, seccomp_is_const_allow, since 5.11), and an
    argument that is loaded ends that."""
    return [] if architecture == _NATIVE else [(_LOAD, 0, 0, 16)]


def _action(name: str, errno: int | None) -> int:
    if name not in _ACTIONS:
        raise ValueError(f"seccomp profile: action {name} is not supported")
    if name in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        return _ACTIONS[name] | (1 if errno is None else errno)
    return _ACTIONS[name]


def _section(profile: dict[str, Any], numbers: dict[str, int], default: int) -> list[Instruction]:
    """The part for one architecture: load the number, then search."""
    conditional: dict[int, list[tuple[tuple[Comparison, ...], int]]] = {}
    plain: dict[int, int] = {}
    for rule in profile.get("syscalls", ()):
        action = _action(rule["action"], rule.get("errnoRet"))
        tests = tuple(
            Comparison(arg["index"], arg["op"], arg["value"], arg.get("valueTwo", 0)) for arg in rule.get("args") or ()
        )
        # Several tests of one argument are alternatives, as runc and crun read them; of different ones all must hold.
        alternatives = [tests] if len({test.argument for test in tests}) == len(tests) else [(test,) for test in tests]
        for name in rule["names"]:
            number = numbers.get(name)
            if number is None:
                continue  # another architecture's, or newer than our table: the default action stands
            if tests:
                conditional.setdefault(number, []).extend((each, action) for each in alternatives)
            else:
                plain[number] = action
    leaves = {
        number: Leaf(tuple(conditional.get(number, ())), plain.get(number, default))
        for number in {*conditional, *plain}
    }
    unknown = _ACTIONS["SCMP_ACT_ERRNO"] | _ENOSYS if default >> 16 == _ACTIONS["SCMP_ACT_ERRNO"] >> 16 else default
    ranges: list[tuple[int, Leaf]] = []
    position = 0
    for number in sorted(leaves):
        if number > position:
            _extend(ranges, position, Leaf((), default))
        _extend(ranges, number, leaves[number])
        position = number + 1
    _extend(ranges, position, Leaf((), default))
    _extend(ranges, max(newest() + 1, position), Leaf((), unknown))
    _extend(ranges, 0x4000_0000, Leaf((), default))  # x32
    return [(_LOAD, 0, 0, 0), *_search(ranges)]


def _extend(ranges: list[tuple[int, Leaf]], start: int, leaf: Leaf) -> None:
    if not ranges or ranges[-1][1] != leaf:
        ranges.append((start, leaf))


def _search(ranges: list[tuple[int, Leaf]]) -> list[Instruction]:
    if len(ranges) == 1:
        return _leaf(ranges[0][1])
    if (near := _near(ranges)) is not None:
        return near
    middle = len(ranges) // 2
    left, right = _search(ranges[:middle]), _search(ranges[middle:])
    pivot = ranges[middle][0]
    if len(left) <= 255:
        return [(_JGE, len(left), 0, pivot), *left, *right]
    return [(_JGE, 0, 1, pivot), (_JA, 0, 0, len(left)), *left, *right]


def _near(ranges: list[tuple[int, Leaf]]) -> list[Instruction] | None:
    """A search whose branches lead straight to what is to be done, each of which stands once behind all of them; None
    when a jump would be longer than a byte can tell."""
    nodes: list[tuple[int, int | Leaf, int | Leaf]] = []  # pivot; where at or above, and where below it leads

    def plant(low: int, high: int) -> int | Leaf:
        """The search from range `low` up to `high`: the number of its first node, or what the only range says."""
        if high - low == 1:
            return ranges[low][1]
        middle, number = (low + high) // 2, len(nodes)
        nodes.append((ranges[middle][0], 0, 0))
        below, above = plant(low, middle), plant(middle, high)
        nodes[number] = (ranges[middle][0], above, below)
        return number

    plant(0, len(ranges))
    places: dict[Leaf, int] = {}
    behind: list[Instruction] = []
    for leaf in (each for _, *both in nodes for each in both if isinstance(each, Leaf)):
        if leaf not in places:
            places[leaf] = len(nodes) + len(behind)
            behind += _leaf(leaf)
    code: list[Instruction] = []
    for number, (pivot, *both) in enumerate(nodes):
        jumps = [(places[each] if isinstance(each, Leaf) else each) - number - 1 for each in both]
        if max(jumps) > 255:
            return None
        code.append((_JGE, jumps[0], jumps[1], pivot))
    return code + behind


def _leaf(leaf: Leaf) -> list[Instruction]:
    code: list[Instruction] = []
    for tests, action in leaf.rules:
        body: list[Instruction] = [(_RET, 0, 0, action)]
        for test in reversed(tests):
            body = _test(test, len(body)) + body
        code += body
    return [*code, (_RET, 0, 0, leaf.otherwise)]


def _test(test: Comparison, rest: int) -> list[Instruction]:
    """Fall through to the `rest` instructions that follow when the test holds, else jump past them."""
    low, high = 16 + 8 * test.argument, 20 + 8 * test.argument  # struct seccomp_data, little endian
    value_high, value_low = test.value >> 32 & _WORD, test.value & _WORD
    load_high, load_low = (_LOAD, 0, 0, high), (_LOAD, 0, 0, low)
    match test.op:
        case "SCMP_CMP_EQ":
            return [load_high, (_JEQ, 0, rest + 2, value_high), load_low, (_JEQ, 0, rest, value_low)]
        case "SCMP_CMP_NE":
            return [load_high, (_JEQ, 0, 2, value_high), load_low, (_JEQ, rest, 0, value_low)]
        case "SCMP_CMP_MASKED_EQ":
            want_high, want_low = test.value_two >> 32 & _WORD, test.value_two & _WORD
            return [
                load_high,
                (_AND, 0, 0, value_high),
                (_JEQ, 0, rest + 3, want_high),
                load_low,
                (_AND, 0, 0, value_low),
                (_JEQ, 0, rest, want_low),
            ]
        case "SCMP_CMP_GT" | "SCMP_CMP_GE":
            last = _JGT if test.op.endswith("GT") else _JGE
            return [
                load_high,
                (_JGT, 3, 0, value_high),
                (_JEQ, 0, rest + 2, value_high),
                load_low,
                (last, 0, rest, value_low),
            ]
        case "SCMP_CMP_LT" | "SCMP_CMP_LE":
            last = _JGE if test.op.endswith("LT") else _JGT
            return [
                load_high,
                (_JGT, rest + 3, 0, value_high),
                (_JEQ, 0, 2, value_high),
                load_low,
                (last, rest, 0, value_low),
            ]
    raise ValueError(f"seccomp profile: comparison {test.op} is not supported")
