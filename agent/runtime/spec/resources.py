"""The `linux.resources` of the configuration: limits that become control groups' files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.runtime.cgroups.base import DeviceRule, Limits, Throttle, Weight
from agent.runtime.spec.refusal import checked, invalid, only

_THROTTLES = {
    "throttleReadBpsDevice": "read_bps",
    "throttleWriteBpsDevice": "write_bps",
    "throttleReadIOPSDevice": "read_iops",
    "throttleWriteIOPSDevice": "write_iops",
}


def parse_limits(resources: Mapping[str, Any]) -> Limits:
    """The typed form. Raises Failure naming the field that is wrong or not supported."""
    return checked("linux.resources: ", _limits, resources)


def _limits(resources: Mapping[str, Any]) -> Limits:
    only("linux.resources.", resources, "devices memory cpu pids blockIO hugepageLimits rdma network unified")
    memory, cpu = resources.get("memory") or {}, resources.get("cpu") or {}
    io, pids, network = resources.get("blockIO") or {}, resources.get("pids") or {}, resources.get("network") or {}
    only(
        "linux.resources.memory.",
        memory,
        "limit swap reservation swappiness disableOOMKiller checkBeforeUpdate useHierarchy",
    )
    only("linux.resources.cpu.", cpu, "shares quota period cpus mems idle burst realtimeRuntime realtimePeriod")
    only("linux.resources.blockIO.", io, " ".join(("weight", "leafWeight", "weightDevice", *_THROTTLES)))
    only("linux.resources.network.", network, "classID priorities")
    return Limits(
        memory_bytes=_positive(memory.get("limit")),
        swap_bytes=memory.get("swap"),
        reservation_bytes=_positive(memory.get("reservation")),
        swappiness=memory.get("swappiness"),
        oom_kill_disable=bool(memory.get("disableOOMKiller")),
        check_usage=bool(memory.get("checkBeforeUpdate")),
        cpu_shares=cpu.get("shares") or 0,
        cpu_quota_us=_positive(cpu.get("quota")),
        cpu_period_us=cpu.get("period") or 0,
        cpu_burst_us=cpu.get("burst") or 0,
        cpu_idle=cpu.get("idle"),
        realtime_runtime_us=cpu.get("realtimeRuntime") or 0,
        realtime_period_us=cpu.get("realtimePeriod") or 0,
        cpus=cpu.get("cpus") or "",
        mems=cpu.get("mems") or "",
        pids=_positive(pids.get("limit")),
        io_weight=io.get("weight") or 0,
        io_leaf_weight=io.get("leafWeight") or 0,
        io_weights=tuple(_weight(entry) for entry in io.get("weightDevice") or ()),
        throttles=tuple(
            Throttle(kind, entry["major"], entry["minor"], entry["rate"])
            for field, kind in _THROTTLES.items()
            for entry in io.get(field) or ()
        ),
        hugepages=tuple((_size(entry["pageSize"]), entry["limit"]) for entry in resources.get("hugepageLimits") or ()),
        rdma=tuple(_rdma(device, entry) for device, entry in (resources.get("rdma") or {}).items()),
        network_class=network.get("classID") or 0,
        network_priorities=tuple((entry["name"], entry["priority"]) for entry in network.get("priorities") or ()),
        devices=tuple(_rule(entry) for entry in resources.get("devices") or ()),
        unified=tuple((resources.get("unified") or {}).items()),
    )


def _rule(entry: Mapping[str, Any]) -> DeviceRule:
    kind = entry.get("type") or "a"
    if kind not in ("a", "b", "c"):
        raise invalid(f"linux.resources.devices: unknown type {kind!r}")
    return DeviceRule(
        bool(entry["allow"]),
        kind,
        _number(entry.get("major")),
        _number(entry.get("minor")),
        entry.get("access") or "rwm",
    )


def _weight(entry: Mapping[str, Any]) -> Weight:
    return Weight(entry["major"], entry["minor"], entry.get("weight") or 0, entry.get("leafWeight") or 0)


def _size(text: str) -> str:
    """A page size as the kernel names its files: "2MB"."""
    if "/" in text or not text.endswith("B"):
        raise invalid(f"linux.resources.hugepageLimits: {text!r} is not a page size")
    return text


def _rdma(device: str, entry: Mapping[str, Any]) -> tuple[str, str]:
    only("linux.resources.rdma[].", entry, "hcaHandles hcaObjects")
    words = {"hca_handle": entry.get("hcaHandles"), "hca_object": entry.get("hcaObjects")}
    return device, " ".join(f"{name}={value}" for name, value in words.items() if value is not None)


def _positive(value: int | None) -> int:
    return value if value is not None and value > 0 else 0


def _number(value: int | None) -> int:
    return -1 if value is None else value
