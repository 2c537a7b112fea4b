"""What a host cannot do for a container, and says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.container.host import check_realtime, discarded
from agent.runtime.cgroups.base import Layout, V1Mount
from shoal.errors import Unsupported
from shoal.model.base import Resources
from shoal.model.container import Container, DeviceWeight, Tuning

SWAP = "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap."
WEIGHT = "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."
DEVICE_WEIGHT = (
    "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded."
)
BOTH = Container(limits=Resources(memory_bytes=64 << 20), tuning=Tuning(io_weight=300))


def layout(top: Path, *files: str, v2: frozenset[str] = frozenset()) -> Layout:
    """Of a host with these files in its groups at the top."""
    for controller in ("memory", "blkio"):
        (top / controller).mkdir()
    for file in files:
        (top / file.partition(".")[0] / file).touch()
    return Layout("", v2, {name: V1Mount(str(top / name), name) for name in ("memory", "blkio")})


def test_a_kernel_without_swap_accounting_and_bfq_discards_their_limits(tmp_path: Path) -> None:
    assert discarded(BOTH, layout(tmp_path)) == (SWAP, WEIGHT)


@pytest.mark.parametrize(
    ("file", "left"), [("memory.memsw.limit_in_bytes", (WEIGHT,)), ("blkio.bfq.io_serviced", (SWAP,))]
)
def test_what_it_has_is_kept(tmp_path: Path, file: str, left: tuple[str, ...]) -> None:
    assert discarded(BOTH, layout(tmp_path, file)) == left


def test_weights_of_devices_are_told_once(tmp_path: Path) -> None:
    tuning = Tuning(device_weights=(DeviceWeight("/dev/nosuch", 100), DeviceWeight("/dev/other", 200)))
    bare = layout(tmp_path)
    assert discarded(Container(tuning=tuning), bare) == (DEVICE_WEIGHT,)
    (tmp_path / "blkio/blkio.bfq.io_serviced").touch()
    assert discarded(Container(tuning=tuning), bare) == ()


def test_what_the_second_version_serves_needs_no_file_of_the_first(tmp_path: Path) -> None:
    assert discarded(BOTH, layout(tmp_path, v2=frozenset({"memory", "io"}))) == ()


def test_nothing_is_discarded_of_who_wants_nothing(tmp_path: Path) -> None:
    bare = layout(tmp_path)
    assert discarded(Container(), bare) == ()
    unlimited = Container(limits=Resources(memory_bytes=64 << 20), tuning=Tuning(memory_swap_bytes=-1))
    assert discarded(unlimited, bare) == ()


REALTIME = Tuning(cpu_realtime_runtime_us=5000)


def test_real_time_takes_a_kernel_that_keeps_it_for_groups(tmp_path: Path) -> None:
    first = Layout("", frozenset(), {"cpu": V1Mount(str(tmp_path), "cpu")})
    for each in (first, Layout("", frozenset({"cpu"}), {})):
        with pytest.raises(Unsupported, match="kernel does not support CPU real-time scheduler"):
            check_realtime(REALTIME, each)
    check_realtime(Tuning(), first)
    (tmp_path / "cpu.rt_runtime_us").touch()
    check_realtime(REALTIME, first)
