"""What shapes a process and its surroundings: restart policies, ulimits, hosts, name servers, networks, keys."""

from __future__ import annotations

import re

from cli.parse.number import integer, natural
from shoal.errors import InvalidArgument, Unsupported
from shoal.names import link_parts
from shoal.v1.types_pb2 import (
    RESTART_CONDITION_ANY,
    RESTART_CONDITION_NONE,
    RESTART_CONDITION_ON_FAILURE,
    RESTART_CONDITION_UNLESS_STOPPED,
    NetworkAttachment,
    RestartPolicy,
    Ulimit,
)

_POLICIES = {
    "": RESTART_CONDITION_NONE,
    "no": RESTART_CONDITION_NONE,
    "on-failure": RESTART_CONDITION_ON_FAILURE,
    "always": RESTART_CONDITION_ANY,
    "unless-stopped": RESTART_CONDITION_UNLESS_STOPPED,
}
_MAC = re.compile(r"[0-9a-f]{2}([:-][0-9a-f]{2}){5}", re.IGNORECASE | re.ASCII)
_ULIMITS = frozenset(
    "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
)


def restart(text: str) -> RestartPolicy:
    """`--restart`: no, always, unless-stopped, on-failure[:N]."""
    name, colon, count = text.partition(":")
    if name not in _POLICIES:
        raise InvalidArgument(
            f"invalid restart policy: unknown policy '{name}'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    if not colon:
        return RestartPolicy(condition=_POLICIES[name])
    if name != "on-failure":
        raise InvalidArgument("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    if not count.isdecimal():
        raise InvalidArgument("invalid restart policy format: maximum retry count must be an integer")
    return RestartPolicy(condition=_POLICIES[name], max_attempts=natural(count))


def ulimit(text: str) -> Ulimit:
    """`name=soft[:hard]`; -1 is no limit."""
    name, equals, limits = text.partition("=")
    if not equals:
        raise InvalidArgument(f"invalid ulimit argument: {text}")
    if name not in _ULIMITS:
        raise InvalidArgument(f"invalid ulimit type: {name}")
    soft, colon, hard = limits.partition(":")
    low, high = integer(soft), integer(hard) if colon else integer(soft)
    if high != -1 and (low > high or low == -1):
        raise InvalidArgument(f"ulimit soft limit must be less than or equal to hard limit: {low} > {high}")
    return Ulimit(name=name, soft=low, hard=high)


def extra_host(text: str) -> str:
    """`host:ip` (or `host=ip`), as "host:ip"."""
    at = min((text.find(each) for each in ":=" if each in text), default=0)
    host, address = text[:at], text[at + 1 :].strip("[]")
    if not host or not address:
        raise InvalidArgument(f'bad format for add-host: "{text}"', hint="it looks like db:10.0.0.5")
    if address == "host-gateway":
        return f"{host}:{address}"
    return f"{host}:{ip_address(address, 'in add-host')}"


def link(text: str) -> str:
    """`db` or `mysql:db`, as it was given."""
    link_parts(text)
    return text


def ip_address(text: str, where: str = "") -> str:
    """`text` when it is an address."""
    import ipaddress  # for who gives one

    try:
        return str(ipaddress.ip_address(text))
    except ValueError as error:
        raise InvalidArgument(f"invalid IP address{' ' + where if where else ''}: {text}") from error


def network(text: str) -> NetworkAttachment:
    """A name, one of docker's words, or `name=NET,alias=A`."""
    if not text:
        raise InvalidArgument("no name set for network")
    if "=" not in text:
        return NetworkAttachment(network="bridge" if text == "default" else text)
    out = NetworkAttachment()
    for part in text.split(","):
        key, _, value = part.partition("=")
        if key == "name":
            out.network = value
        elif key == "alias":
            out.aliases.append(value)
        elif key == "ip":
            out.address = ipv4_address(value)
        elif key == "mac-address":
            out.mac = mac_address(value)
        elif key in ("driver-opt", "ip6", "link-local-ip", "gw-priority"):
            raise Unsupported(f"network option {key} is not supported yet in '{text}'")
        else:
            raise InvalidArgument(f"invalid field key {key}")
    if not out.network:
        raise InvalidArgument(f"network name/id is not specified in '{text}'")
    return out


def ipv4_address(text: str) -> str:
    """An address, or nothing where any will do."""
    if ":" in text:
        raise InvalidArgument(f"invalid IPv4 address: {text}")
    return ip_address(text) if text else ""


def mac_address(text: str) -> str:
    """Six bytes in hexadecimal, as one interface may have them, or nothing where any will do."""
    if not text:
        return ""
    if not _MAC.fullmatch(text):
        raise InvalidArgument(f"{text} is not a valid mac address", hint="it looks like 02:42:ac:11:00:02")
    mac = text.lower().replace("-", ":")
    if int(mac[:2], 16) & 1:
        raise InvalidArgument(f"{text} is not a valid mac address: it is one of a group")
    return mac


def stream(text: str) -> str:
    """`-a`: one of a process's three, in lower case."""
    if text.lower() not in ("stdin", "stdout", "stderr"):
        raise InvalidArgument("valid streams are STDIN, STDOUT and STDERR")
    return text.lower()


def detach_keys(text: str) -> bytes:
    """`ctrl-p,ctrl-q` as the bytes that a terminal sends; empty where there are none."""
    out = bytearray()
    for key in text.split(",") if text else []:
        name = key.lower().removeprefix("ctrl-")
        if len(key) == 1:
            out += key.encode()
        elif key.lower().startswith("ctrl-") and len(name) == 1 and "@" <= name.upper() <= "_":
            out.append(ord(name.upper()) & 0x1F)
        else:
            raise InvalidArgument(
                f"Invalid escape keys ({text}) provided", hint="give letters or ctrl-<letter>, comma-separated"
            )
    return bytes(out)
