"""Published ports: `[ip:][host]:container[/proto]` with ranges, and `published=80,target=80,mode=host`."""

from __future__ import annotations

import ipaddress
import re

from shoal.errors import InvalidArgument, Unsupported
from shoal.v1.types_pb2 import (
    PORT_PROTOCOL_TCP,
    PORT_PROTOCOL_UDP,
    PUBLISH_MODE_HOST,
    PUBLISH_MODE_INGRESS,
    Port,
    PortProtocol,
)

PROTOCOLS = {"tcp": PORT_PROTOCOL_TCP, "udp": PORT_PROTOCOL_UDP}
_MODES = {"ingress": PUBLISH_MODE_INGRESS, "host": PUBLISH_MODE_HOST}
_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)


def container_ports(text: str) -> list[Port]:
    """`-p` of a container: always on its own host."""
    if "=" in text:
        fields = _fields(text)
        if fields.get("mode", "host") != "host":
            raise InvalidArgument(f"mode={fields['mode']} is for services", hint="leave it out, or use mode=host")
        ports = _long(text, fields, default="host")
    else:
        ports = _short(text)
    for port in ports:
        port.mode = PUBLISH_MODE_HOST
    return ports


def service_ports(text: str) -> list[Port]:
    """`--publish` of a service: on every host unless it says mode=host."""
    if "=" in text:
        return _long(text, _fields(text), default="ingress")
    ports = _short(text)
    for port in ports:
        if port.host_address:
            raise InvalidArgument(
                f"{text}: a service is published on every address of the hosts", hint="leave the address out"
            )
        if port.published_last:
            raise InvalidArgument(f"{text}: a service has one port on all hosts", hint="give one, or none at all")
        port.mode = PUBLISH_MODE_INGRESS
    return ports


def port_and_protocol(text: str, what: str = "port") -> tuple[int, PortProtocol.ValueType]:
    """ "80/udp" as (80, UDP); tcp is implied. Raises InvalidArgument."""
    number, slash, protocol = text.partition("/")
    return _range(number, what)[0], _protocol(protocol if slash else "tcp")


def _short(text: str) -> list[Port]:
    rest, slash, protocol = text.rpartition("/")
    if not slash:
        rest, protocol = text, "tcp"
    number = _protocol(protocol)
    address, published, target = _split(rest, text)
    if not target:
        raise InvalidArgument(f"no port specified: {text}<empty>")
    targets = _range(target, "containerPort")
    hosts = _range(published, "hostPort", least=0) if published else range(0)
    if hosts and len(hosts) != len(targets):
        if len(targets) == 1:  # any of them
            first, last = hosts[0], hosts[-1]
            return [
                Port(
                    protocol=number,
                    target=targets[0],
                    host_address=address,
                    published=first,
                    published_last=last,
                )
            ]
        raise InvalidArgument(f"invalid ranges specified for container and host Ports: {target} and {published}")
    return [
        Port(protocol=number, target=each, published=hosts[at] if hosts else 0, host_address=address)
        for at, each in enumerate(targets)
    ]


def _split(rest: str, text: str) -> tuple[str, str, str]:
    """(address, published, target) of what stands before the protocol."""
    address = ""
    if rest.startswith("["):
        address, _, rest = rest[1:].partition("]")
        rest = rest.removeprefix(":")
    elif rest.count(":") == 2:
        address, _, rest = rest.partition(":")
    elif rest.count(":") > 2:
        raise InvalidArgument(f"invalid port specification: {text}", hint="an IPv6 address stands in brackets")
    if address:
        try:
            ipaddress.ip_address(address)
        except ValueError as error:
            raise InvalidArgument(f"invalid IP address: {address}") from error
    published, colon, target = rest.rpartition(":")
    return address, published if colon else "", target


def _fields(text: str) -> dict[str, str]:
    fields = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals:
            raise InvalidArgument(f"invalid field {part}", hint="give published=8080,target=80")
        if key not in ("published", "target", "protocol", "mode"):
            raise InvalidArgument(f"invalid field key {key}", hint="known are published, target, protocol, mode")
        fields[key] = value
    return fields


def _long(text: str, fields: dict[str, str], *, default: str) -> list[Port]:
    if "target" not in fields:
        raise InvalidArgument(f"missing mandatory field 'target' in {text}")
    mode = fields.get("mode", default)
    if mode not in _MODES:
        raise InvalidArgument(f"invalid publish mode value ({mode}): must be either 'ingress' or 'host'")
    targets = _range(fields["target"], "target port")
    hosts = _range(fields["published"], "published port", least=0) if "published" in fields else range(0)
    if hosts and len(hosts) != len(targets):
        raise InvalidArgument(f"invalid ranges specified for container and host Ports: {text}")
    protocol = _protocol(fields.get("protocol", "tcp"))
    return [
        Port(protocol=protocol, target=each, published=hosts[at] if hosts else 0, mode=_MODES[mode])
        for at, each in enumerate(targets)
    ]


def _range(text: str, what: str, least: int = 1) -> range:
    found = _RANGE.fullmatch(text)
    if found is None:
        raise InvalidArgument(f"invalid {what}: {text}")
    first = int(found[1])
    last = int(found[2] or first)
    if not least <= first <= last <= 65535:
        raise InvalidArgument(f"invalid {what}: {text}")
    return range(first, last + 1)


def _protocol(text: str) -> PortProtocol.ValueType:
    if text.lower() == "sctp":
        raise Unsupported("protocol sctp is not supported yet")
    if text.lower() not in PROTOCOLS:
        raise InvalidArgument(f"invalid proto: {text}")
    return PROTOCOLS[text.lower()]
