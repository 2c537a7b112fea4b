"""Options of isolation: devices, security options, rates of devices, exposed ports, swap."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Mapping, Sequence

from cli.parse.number import integer, natural
from cli.parse.size import size
from shoal.errors import InvalidArgument, Unsupported
from shoal.names import is_device_name
from shoal.v1.types_pb2 import ContainerSpec, DeviceMapping, DeviceWeight, Throttle

_GPU, _GPUS = "nvidia.com/gpu", 64  # more than any host has
_MODE = re.compile(r"[rwm]{1,3}")
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)


class Devices(list[DeviceMapping]):
    """Those of one `--gpus`."""


class Exposed(list[str]):
    """The ports of one `--expose`: a range is several."""


def device(text: str) -> DeviceMapping:
    """`/dev/x[:/dev/y][:rwm]`, or `vendor.com/class=name`."""
    if is_device_name(text):
        return DeviceMapping(source=text)
    source, *rest = text.split(":")
    permissions = rest.pop() if rest and _MODE.fullmatch(rest[-1]) else ""
    if len(rest) > 1 or not source:
        raise InvalidArgument(f"invalid device specification: {text}")
    return DeviceMapping(source=source, target=rest[0] if rest else "", permissions=permissions)


def gpus(text: str) -> Devices:
    """`all`, a number of them, or `device=0,1`: NVIDIA's, by the names that its file on the host has for them."""
    try:
        fields = next(csv.reader([text], strict=True))
    except (csv.Error, StopIteration) as error:
        raise InvalidArgument(f"invalid --gpus '{text}': {error}") from error
    if not fields:
        raise InvalidArgument("--gpus needs a number of them, all, or device=NAME")
    names: list[str] = []
    for field in fields:
        key, equals, value = field.partition("=")
        match key if equals else "count":
            case "count" if (count := value if equals else field) in ("all", "-1"):
                names.append("all")
            case "count":
                names += map(str, range(_count(count)))
            case "device":
                names += value.split(",")
            case "driver" if value == "nvidia":
                pass
            case "capabilities" if value == "gpu":
                pass
            case "driver" | "capabilities" | "options":
                raise Unsupported(f"--gpus {field} is not supported yet", hint="a GPU comes with all that it can do")
            case _:
                raise InvalidArgument(f"unexpected key '{key}' in '{field}'")
    return Devices(DeviceMapping(source=f"{_GPU}={each}") for each in names or "0")


def _count(text: str) -> int:
    number = natural(text)
    if not 0 < number <= _GPUS:
        raise InvalidArgument(f"invalid count of GPUs: {text}", hint=f"it is 1 to {_GPUS}, or all")
    return number


def exposed(text: str) -> Exposed:
    """`80`, `8000-8010/udp`."""
    found = _PORT.fullmatch(text)
    first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if found is None or not 0 < first <= last < 65536:
        raise InvalidArgument(f"invalid range format for --expose: {text}")
    protocol = (found[3] or "tcp").lower()
    if protocol == "sctp":
        raise Unsupported(f"protocol sctp is not supported yet in '{text}'")
    return Exposed(f"{number}/{protocol}" for number in range(first, last + 1))


def technology(text: str) -> str:
    """`--isolation`: Linux has one."""
    if text not in ("", "default"):
        raise InvalidArgument(f"Invalid isolation: \"{text}\" - linux only supports 'default'")
    return text


def swap(text: str) -> int:
    """Bytes, or -1 for no limit."""
    return integer(text) if text == "-1" else size(text)


def swappiness(text: str) -> int | None:
    """0 to 100, or -1 for the kernel's own way."""
    value = integer(text)
    if not -1 <= value <= 100:
        raise InvalidArgument(f"invalid value: {value}. Valid memory swappiness range is 0-100")
    return value if value >= 0 else None


def throttles(rates: Mapping[str, Iterable[str]]) -> list[Throttle]:
    """`/dev/x:1mb` by kind of rate. Raises InvalidArgument."""
    found = []
    for kind, texts in rates.items():
        for text in texts:
            path, colon, rate = text.rpartition(":")
            if not colon or not path.startswith("/dev/"):
                raise InvalidArgument(f"bad format: {text}", hint="it looks like /dev/sda:1mb")
            value = size(rate) if kind.endswith("bps") else integer(rate)
            if value <= 0:
                raise InvalidArgument(f"invalid rate for device: {text}. Rate must be a positive integer")
            found.append(Throttle(kind=kind, path=path, rate=value))
    return found


def device_weight(text: str) -> DeviceWeight:
    """`/dev/x:300`; 0 says nothing."""
    path, colon, weight = text.partition(":")
    if not colon or not path:
        raise InvalidArgument(f"bad format: {text}")
    if not path.startswith("/dev/"):
        raise InvalidArgument(f"bad format for device path: {text}")
    value = int(weight) if weight.isdecimal() and weight.isascii() and len(weight) < 6 else -1
    if value and not 10 <= value <= 1000:
        raise InvalidArgument(f"invalid weight for device: {text}", hint="it is 10 to 1000")
    return DeviceWeight(path=path, weight=value)


def security(spec: ContainerSpec, options: Sequence[str]) -> None:
    """Put `--security-opt`s into `spec`. A profile is a file of this machine."""
    for text in options:
        name, value = _option(text)
        if name == "no-new-privileges" and value in ("", "true", "false"):
            spec.no_new_privileges = value != "false"
        elif name == "seccomp" and value:
            spec.seccomp = "" if value == "builtin" else value if value == "unconfined" else _profile(value)
        elif name == "systempaths" and value in ("confined", "unconfined"):
            spec.unmasked = value == "unconfined"  # docker has no word for the other, which updates of services need
        elif (name, value) in (("apparmor", "unconfined"), ("label", "disable")):
            continue  # nothing of theirs is ever in force here
        elif name in ("apparmor", "label", "writable-cgroups"):
            raise Unsupported(f"security option {text} is not supported yet")
        else:
            raise InvalidArgument(f"invalid --security-opt: {text!r}")


def _option(text: str) -> tuple[str, str]:
    at = min((text.find(each) for each in "=:" if each in text), default=len(text))
    return text[:at], text[at + 1 :]


def _profile(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123
            text = file.read()
        return json.dumps(json.loads(text), separators=(",", ":"))
    except OSError as error:
        raise InvalidArgument(f"opening seccomp profile ({path}) failed: {error.strerror}") from error
    except ValueError as error:
        raise InvalidArgument(f"seccomp profile ({path}) is no JSON: {error}") from error
