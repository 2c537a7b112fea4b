"""Our filters against libseccomp's: the same profile, the same calls, the same verdicts. Both run in a small BPF
machine here, so that nothing has to be installed into a process."""

from __future__ import annotations

import ctypes
import operator
import os
import random
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.kernel.numbers import numbers_of
from agent.kernel.syscalls import MACHINE
from agent.runtime.profile import default_profile
from agent.runtime.seccomp import compile_profile

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}[MACHINE]
_OPERATORS = {"NE": 1, "LT": 2, "LE": 3, "EQ": 4, "GE": 5, "GT": 6, "MASKED_EQ": 7}
_ACTIONS = {"ALLOW": 0x7FFF0000, "ERRNO": 0x00050000, "LOG": 0x7FFC0000, "KILL_PROCESS": 0x80000000}
_WORD = (1 << 32) - 1
_NUMBERS = numbers_of(MACHINE)


class _Test(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return None
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = (ctypes.c_uint32,)
    library.seccomp_rule_add_array.argtypes = (
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_Test),
    )
    library.seccomp_export_bpf.argtypes = (ctypes.c_void_p, ctypes.c_int)
    library.seccomp_release.argtypes = (ctypes.c_void_p,)
    return library


LIBRARY = _library()
needs_library = pytest.mark.skipif(LIBRARY is None, reason="libseccomp.so.2 is not installed")


def theirs(profile: dict[str, Any]) -> bytes:
    """The filter that libseccomp makes of a profile, as runc asks it to."""
    assert LIBRARY is not None
    default = _action(profile["defaultAction"], profile.get("defaultErrnoRet", 1))
    context = LIBRARY.seccomp_init(default)
    try:
        for rule in profile["syscalls"]:
            action = _action(rule["action"], rule.get("errnoRet", 1))
            if action == default:
                continue  # libseccomp takes no rule that changes nothing
            tests = [
                _Test(each["index"], _OPERATORS[each["op"].removeprefix("SCMP_CMP_")], each["value"], each["valueTwo"])
                for each in rule.get("args") or ()
            ]
            groups = [tests] if len({test.arg for test in tests}) == len(tests) else [[test] for test in tests]
            for name in rule["names"]:
                for group in groups if name in _NUMBERS else ():
                    array = (_Test * len(group))(*group)
                    result = LIBRARY.seccomp_rule_add_array(context, action, _NUMBERS[name], len(group), array)
                    assert result in (0, -17), (name, result)  # -EEXIST: said before
        fd = os.memfd_create("filter")
        try:
            assert LIBRARY.seccomp_export_bpf(context, fd) == 0
            return os.pread(fd, 1 << 20, 0)
        finally:
            os.close(fd)
    finally:
        LIBRARY.seccomp_release(context)


def _action(name: str, errno: int) -> int:
    action = _ACTIONS[name.removeprefix("SCMP_ACT_")]
    return action | errno if name.endswith("ERRNO") else action


def verdict(code: bytes, number: int, arguments: tuple[int, ...]) -> int:
    """What a filter answers (bpf(4): the classic machine, as far as seccomp lets one use it)."""
    data = struct.pack("<iIQ6Q", number, _AUDIT_ARCH, 0, *arguments)
    program = list(struct.iter_unpack("<HBBI", code))
    at = accumulator = 0
    while True:
        kind, if_true, if_false, k = program[at]
        at += 1
        if kind == 0x20:
            accumulator = struct.unpack_from("<I", data, k)[0]
        elif kind == 0x54:
            accumulator &= k
        elif kind == 0x05:
            at += k
        elif kind == 0x06:
            return int(k)
        else:
            holds = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k}[kind]
            at += if_true if holds else if_false


values = st.one_of(st.integers(0, 40), st.sampled_from([_WORD, 1 << 32, (1 << 64) - 1]), st.integers(0, (1 << 64) - 1))
names = st.sampled_from(sorted(_NUMBERS))
tests = st.fixed_dictionaries(
    {
        "index": st.integers(0, 5),
        "op": st.sampled_from([f"SCMP_CMP_{name}" for name in _OPERATORS]),
        "value": values,
        "valueTwo": values,
    }
).map(
    lambda test: test if test["op"] != "SCMP_CMP_MASKED_EQ" else {**test, "valueTwo": test["valueTwo"] & test["value"]}
)


@st.composite
def profiles(draw: st.DrawFn, *, alternatives: bool) -> dict[str, Any]:
    """One action per call: which of two that contradict each other wins is nobody's promise."""
    arguments = st.lists(tests, max_size=3, unique_by=None if alternatives else lambda test: test["index"])
    found: list[dict[str, Any]] = []
    for name in draw(st.lists(names, unique=True, max_size=8)):
        action, errno = draw(st.sampled_from(["ALLOW", "ERRNO", "LOG"])), draw(st.integers(1, 100))
        said = {"names": [name], "action": f"SCMP_ACT_{action}", "errnoRet": errno}
        conditions = draw(st.lists(arguments, min_size=1, max_size=3 if alternatives else 1))
        found += [{**said, "args": condition} for condition in conditions]
    default = draw(st.sampled_from(["ALLOW", "ERRNO", "KILL_PROCESS"]))
    return {"defaultAction": f"SCMP_ACT_{default}", "defaultErrnoRet": 1, "syscalls": found}


def calls(profile: dict[str, Any], seed: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Some calls, with arguments at and around the values that the profile asks for."""
    chance = random.Random(seed)
    named = [name for rule in profile["syscalls"] for name in rule["names"]] or sorted(_NUMBERS)
    wanted = [each[key] for rule in profile["syscalls"] for each in rule["args"] for key in ("value", "valueTwo")]
    edges = [(value + d) % (1 << 64) for value in (*wanted, 0, 1 << 32) for d in (-1, 0, 1)]
    for _ in range(60):
        yield chance.choice(named), tuple(chance.choice([*edges, chance.getrandbits(64)]) for _ in range(6))


def meant(profile: dict[str, Any], name: str, arguments: tuple[int, ...]) -> int:
    """The profile, taken at its word."""
    for rule in profile["syscalls"]:
        held = [_holds(test, arguments[test["index"]]) for test in rule["args"]]
        apart = len({test["index"] for test in rule["args"]}) == len(held)
        if name in rule["names"] and (all(held) if apart else any(held)):
            return _action(rule["action"], rule["errnoRet"])
    return _action(profile["defaultAction"], profile["defaultErrnoRet"])


def _holds(test: dict[str, Any], value: int) -> bool:
    wanted = test["value"]
    if test["op"] == "SCMP_CMP_MASKED_EQ":
        return bool(value & wanted == test["valueTwo"])
    return bool(getattr(operator, test["op"].removeprefix("SCMP_CMP_").lower())(value, wanted))


@settings(max_examples=60, deadline=None)
@given(profiles(alternatives=True), st.integers(0, 1 << 32))
def test_every_call_gets_the_verdict_that_the_profile_says(profile: dict[str, Any], seed: int) -> None:
    code = compile_profile(profile).code
    for name, arguments in calls(profile, seed):
        assert verdict(code, _NUMBERS[name], arguments) == meant(profile, name, arguments), (name, arguments)


@needs_library
@settings(max_examples=60, deadline=None)
@given(profiles(alternatives=False), st.integers(0, 1 << 32))  # of which libseccomp 2.5 loses some
def test_every_call_gets_the_same_verdict_as_from_libseccomp(profile: dict[str, Any], seed: int) -> None:
    ours, other = compile_profile(profile).code, theirs(profile)
    for name, arguments in calls(profile, seed):
        assert verdict(ours, _NUMBERS[name], arguments) == verdict(other, _NUMBERS[name], arguments), (name, arguments)


@needs_library
@pytest.mark.parametrize("capabilities", [(), ("CAP_SYS_ADMIN",), ("CAP_SYS_PTRACE", "CAP_BPF")])
def test_dockers_profile_comes_to_the_same(capabilities: tuple[str, ...]) -> None:
    profile = dict(default_profile(capabilities))
    ours, other = (
        compile_profile(profile).code,
        theirs({**profile, "syscalls": [_filled(rule) for rule in profile["syscalls"]]}),
    )
    for name, number in _NUMBERS.items():
        for first in (0, 1, 8, 16, 38, 39, 40, 41, 0x20000, 0x7E020000, 0x10000000, _WORD):
            arguments = (first, 0, 0, 0, 0, 0)
            assert verdict(ours, number, arguments) == verdict(other, number, arguments), (name, first)


def _filled(rule: dict[str, Any]) -> dict[str, Any]:
    return {**rule, "errnoRet": rule.get("errnoRet", 1)}
