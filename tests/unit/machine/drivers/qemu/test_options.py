"""What --driver-opt may say of a virtual machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from machine.drivers.qemu.options import Acceleration, Options, parse
from shoal.errors import InvalidArgument


def test_every_option_is_read(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.touch()
    said = {
        "memory": "2g",
        "cpus": "4",
        "disk": "512M",
        "image": str(image),
        "accel": "tcg",
        "bridge": "br0",
        "address": "10.5.0.11/24",
    }
    wanted = Options(2 << 30, 4, 512 << 20, str(image), Acceleration.TCG, "br0", "10.5.0.11/24")
    assert parse(said) == wanted
    assert parse({}) == Options()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("colour", "blue", "has no option colour"),
        ("memory", "64m", "is too little"),
        ("memory", "1", "is no size"),
        ("memory", "-1g", "is no size"),
        ("cpus", "0", "is no number from 1"),
        ("cpus", "1.5", "is no number from 1"),
        ("cpus", "²", "is no number from 1"),
        ("image", "/nowhere", "is no file"),
        ("accel", "hvf", "is none"),
        ("bridge", "br0,script=/bin/sh", "is no name of a bridge"),
        ("bridge", "br0", "go together"),
        ("address", "10.5.0.11", "is no address of a host"),
        ("address", "10.5.0.0/24", "is no address of a host"),
        ("address", "fd00::1/64", "10.5.0.11/24"),
    ],
)
def test_what_cannot_be_is_refused_by_name(key: str, value: str, said: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        parse({key: value})
    assert said in f"{raised.value} {raised.value.hint}"
