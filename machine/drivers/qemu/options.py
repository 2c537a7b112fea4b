"""Options: what `--driver-opt` may say of a virtual machine, parsed once."""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from machine.drivers import size
from machine.drivers.size import MIB
from shoal.errors import InvalidArgument

# Less, and Debian does not come up.
_LEAST_MEMORY_BYTES = 256 * MIB
_MOST_CPUS = 255
_LINK = re.compile(r"[A-Za-z0-9_.-]{1,15}", re.ASCII)


class Acceleration(enum.Enum):
    """What runs the machine's instructions: the processor, QEMU, or the first of them that can."""

    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"


class Options(msgspec.Struct, frozen=True):
    """`disk_bytes` 0 is as large as the image, `image` empty a Debian of our own. `bridge` is one of this computer's,
    and `address` then the machine's on it, with its prefix."""

    memory_bytes: int = 1024 * MIB
    cpus: int = 2
    disk_bytes: int = 0
    image: str = ""
    acceleration: Acceleration = Acceleration.AUTO
    bridge: str = ""
    address: str = ""


def parse(texts: Mapping[str, str]) -> Options:
    """Raises InvalidArgument for an option that there is not, and for a value that cannot be."""
    unknown = sorted(texts.keys() - _PARSERS.keys())
    if unknown:
        raise InvalidArgument(
            f'driver "qemu" has no option {", ".join(unknown)}', hint=f"it has {', '.join(sorted(_PARSERS))}"
        )
    values = {name: value for key, text in texts.items() for name, value in _PARSERS[key](key, text).items()}
    options = msgspec.structs.replace(Options(), **values)
    if bool(options.bridge) != bool(options.address):
        raise InvalidArgument(
            "options bridge and address go together",
            hint="on a bridge a machine has the address that you give it: bridge=br0, address=10.5.0.11/24",
        )
    return options


def _memory(key: str, text: str) -> dict[str, object]:
    memory_bytes = size.parse(key, text)
    if memory_bytes < _LEAST_MEMORY_BYTES:
        raise InvalidArgument(f"option {key}: {text} is too little", hint=f"at least {_LEAST_MEMORY_BYTES // MIB}m")
    return {"memory_bytes": memory_bytes}


def _disk(key: str, text: str) -> dict[str, object]:
    return {"disk_bytes": size.parse(key, text)}


def _cpus(key: str, text: str) -> dict[str, object]:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:9]) <= _MOST_CPUS):
        raise InvalidArgument(f'option {key}: "{text}" is no number from 1 to {_MOST_CPUS}')
    return {"cpus": int(text)}


def _image(key: str, text: str) -> dict[str, object]:
    path = Path(text).expanduser().absolute()
    if not path.is_file():
        raise InvalidArgument(f"option {key}: {path} is no file", hint="give a disk image with cloud-init in it")
    return {"image": str(path)}


def _acceleration(key: str, text: str) -> dict[str, object]:
    words = [each.value for each in Acceleration]
    if text not in words:
        raise InvalidArgument(f'option {key}: "{text}" is none', hint=f"there are {', '.join(words)}")
    return {"acceleration": Acceleration(text)}


def _bridge(key: str, text: str) -> dict[str, object]:
    if not _LINK.fullmatch(text):
        raise InvalidArgument(f'option {key}: "{text}" is no name of a bridge')
    return {"bridge": text}


def _address(key: str, text: str) -> dict[str, object]:
    try:
        address = ipaddress.IPv4Interface(text)
    except ValueError as error:
        raise InvalidArgument(f'option {key}: "{text}": {error}', hint="write it as 10.5.0.11/24") from error
    if "/" not in text or address.ip in (address.network.network_address, address.network.broadcast_address):
        raise InvalidArgument(f'option {key}: "{text}" is no address of a host', hint="write it as 10.5.0.11/24")
    return {"address": str(address)}


_PARSERS = {
    "accel": _acceleration,
    "address": _address,
    "bridge": _bridge,
    "cpus": _cpus,
    "disk": _disk,
    "image": _image,
    "memory": _memory,
}
