"""QEMU's command line, from values."""

from __future__ import annotations

import itertools
from pathlib import Path

from machine.drivers.qemu.arguments import arguments
from machine.drivers.qemu.options import Acceleration, Options
from machine.drivers.qemu.vm import Folder, Vm

FOLDER = Folder(Path("/store/vm1"))


def vm(options: Options = Options(), *, base: str = "/bases/b") -> Vm:  # noqa: B008
    return Vm("vm1", options, 2200, "192.168.213.2/24", base, "SHA256:x")


def line(of: Vm, acceleration: Acceleration = Acceleration.TCG, bridge: int | None = None) -> list[str]:
    return arguments(of, FOLDER, acceleration=acceleration, bridge_descriptor=bridge)


def values(argv: list[str], flag: str) -> list[str]:
    return [value for key, value in itertools.pairwise(argv) if key == flag]


def test_memory_and_cpus_are_those_that_were_asked_for() -> None:
    argv = line(vm(Options(memory_bytes=2 << 30, cpus=3)))
    assert (values(argv, "-m"), values(argv, "-smp")) == (["2048M"], ["3"])


def test_ssh_is_forwarded_from_the_loopback_alone() -> None:
    forwarded = [each for each in values(line(vm()), "-netdev") if "hostfwd" in each]
    assert forwarded == ["user,id=way,ipv6=off,hostfwd=tcp:127.0.0.1:2200-:22"]


def test_kvm_gives_the_processor_itself() -> None:
    assert values(line(vm(), Acceleration.KVM), "-cpu") == ["host"]
    assert values(line(vm()), "-accel") == ["tcg"]


def test_our_debian_is_booted_by_its_kernel_and_an_image_by_its_loader() -> None:
    assert values(line(vm()), "-kernel") == ["/bases/b/kernel"]
    assert not values(line(vm(base="")), "-kernel")


def test_machines_of_one_folder_hear_each_other_or_are_on_a_bridge() -> None:
    one, other = (values(line(each), "-netdev")[1] for each in (vm(), vm(Options(cpus=1))))
    assert one == other
    assert "localaddr=127.0.0.1" in one
    assert values(line(vm(), bridge=7), "-netdev")[1] == "tap,id=others,fd=7"


def test_a_comma_in_a_path_ends_no_value() -> None:
    argv = arguments(vm(), Folder(Path("/a,b/vm1")), acceleration=Acceleration.TCG, bridge_descriptor=None)
    assert values(argv, "-chardev") == ["file,id=console,path=/a,,b/vm1/console.log"]
    assert '"filename": "/a,b/vm1/disk.qcow2"' in values(argv, "-blockdev")[0]
