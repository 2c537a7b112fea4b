"""Options of isolation: what can never be, and what docker's words come to."""

import json

import pytest

from agent.container.isolation import check_tuning, device_rules, log_limits, seccomp_profile
from shoal.errors import InvalidArgument, Unsupported
from shoal.model.base import Resources
from shoal.model.container import ContainerSpec, DeviceWeight, LogConfig, Throttle, Tuning

MIB = 1 << 20


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("c 1:3 rwm", {"type": "c", "major": 1, "minor": 3, "access": "rwm"}),
        ("b 8:* r", {"type": "b", "major": 8, "access": "r"}),
        ("a *:* m", {"type": "a", "access": "m"}),
    ],
)
def test_a_device_rule_is_ocis(text, rule):
    assert device_rules(ContainerSpec(device_rules=(text,))) == [{"allow": True, **rule}]


@pytest.mark.parametrize(
    ("log", "limits"),
    [
        (LogConfig(), (0, 1)),
        (LogConfig("json-file", {"max-size": "10k"}), (10240, 1)),
        (LogConfig("json-file", {"max-size": "10m", "max-file": "3"}), (10 * MIB, 3)),
        (LogConfig("local"), (20 * MIB, 5)),
        (LogConfig("local", {"max-file": "2"}), (20 * MIB, 2)),
        (LogConfig("none"), (0, 1)),
    ],
)
def test_how_large_a_log_becomes(log, limits):
    assert log_limits(log) == limits


@pytest.mark.parametrize(
    ("log", "error"),
    [
        (LogConfig("syslog"), Unsupported),
        (LogConfig("none", {"max-size": "1m"}), InvalidArgument),
        (LogConfig("json-file", {"max-size": "0"}), InvalidArgument),
        (LogConfig("json-file", {"max-size": "much"}), InvalidArgument),
        (LogConfig("json-file", {"max-size": "1m", "max-file": "0"}), InvalidArgument),
        (LogConfig("json-file", {"max-file": "2"}), InvalidArgument),
        (LogConfig("json-file", {"compress": "true"}), InvalidArgument),
    ],
)
def test_a_log_that_cannot_be(log, error):
    with pytest.raises(error):
        log_limits(log)


def test_a_profile_is_for_the_capabilities_that_there_are():
    text = json.dumps(
        {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 38,
            "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
            "syscalls": [
                {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW", "comment": "all", "includes": {}},
                {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}, "args": None},
                {"names": ["x"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["s390x"]}},
            ],
        }
    )

    def named(*granted):
        return [rule["names"] for rule in seccomp_profile(text, granted)["syscalls"]]

    assert named() == [["read", "write"], ["clone"]]
    assert named("CAP_SYS_ADMIN") == [["read", "write"], ["mount"]]
    made = seccomp_profile(text, ())
    assert made["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    assert (made["defaultAction"], made["defaultErrnoRet"]) == ("SCMP_ACT_ERRNO", 38)
    assert made["syscalls"][0] == {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"}


@pytest.mark.parametrize("text", ["{}", "[]", "nonsense", '{"defaultAction":"A","syscalls":[{}]}'])
def test_what_is_no_profile(text):
    with pytest.raises(InvalidArgument, match="Decoding seccomp profile failed"):
        seccomp_profile(text, ())


@pytest.mark.parametrize(
    ("tuning", "limits", "words"),
    [
        (Tuning(cpu_quota_us=5000), Resources(nano_cpus=10**9), "Conflicting options"),
        (Tuning(cpu_period_us=10), Resources(), "CFS period|cfs period"),
        (Tuning(cpu_quota_us=10), Resources(), "cfs quota"),
        (Tuning(memory_swap_bytes=MIB), Resources(), "always set the Memory limit"),
        (Tuning(memory_swap_bytes=MIB), Resources(memory_bytes=2 * MIB), "larger than memory limit"),
        (Tuning(memory_reservation_bytes=2 * MIB), Resources(memory_bytes=MIB), "memory reservation"),
        (Tuning(io_weight=9), Resources(), "blkio weight"),
        (Tuning(cpuset_cpus="0-4"), Resources(), "available: 0-3"),
        (Tuning(cpuset_cpus="x"), Resources(), "Invalid value x"),
        (Tuning(throttles=(Throttle("odd", "/dev/x", 1),)), Resources(), "invalid rate"),
        (Tuning(device_weights=(DeviceWeight("/dev/x", 9),)), Resources(), "invalid weight for device: /dev/x:9"),
        (Tuning(device_weights=(DeviceWeight("x", 100),)), Resources(), "invalid weight"),
        (
            Tuning(cpu_realtime_period_us=10, cpu_realtime_runtime_us=11),
            Resources(),
            "real-time runtime cannot be higher",
        ),
    ],
)
def test_what_the_kernel_would_refuse(tuning, limits, words):
    with pytest.raises(InvalidArgument, match=words):
        check_tuning(tuning, limits, cpus=4)


def test_what_it_takes():
    check_tuning(Tuning(memory_swap_bytes=-1, cpuset_cpus="0-1,3"), Resources(memory_bytes=MIB), cpus=4)
