"""Underlay: the network between the hosts of a rack. A bridge in a network namespace of its own, where no firewall of
this machine drops what passes between two hosts, and an uplink by which this machine reaches them.

Its addresses are of 198.18.0.0/15, which RFC 2544 keeps for tests: a rack has a /24 of it for as long as its folder is
there, also while this machine is off. This machine is .1 of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

from machine.drivers.local.tool import run
from shoal.errors import Exhausted, ShoalError

# One link per subnet that a rack has, to the rack's folder; it dangles once that is gone.
_CLAIMS = Path("/var/lib/shoal-local/subnets")
_SUBNETS = [f"198.{second}.{third}" for second in (18, 19) for third in range(256)]
FIRST_HOST, LAST_HOST = 11, 254


class Underlay:
    """`folder` is the rack's, and `namespace` a file to hold the network namespace by."""

    def __init__(self, rack: str, folder: Path, namespace: Path) -> None:
        self._uplink = f"shl-{rack}"[:15]
        self._folder = folder
        self._namespace = namespace

    def make(self) -> str:
        """Be there, and answer its subnet: the first three numbers of every address."""
        with _alone():
            links = json.loads(run("ip", "-j", "-4", "addr"))
            taken = {each["ifname"]: address["local"] for each in links for address in each["addr_info"]}
            subnet = self._claim({address.rsplit(".", 1)[0] for address in taken.values()})
            if taken.get(self._uplink) != f"{subnet}.1":
                self._unmake()
                self._make(subnet)
            return subnet

    def remove(self) -> None:
        """Its cables go with it, and its subnet is anybody's."""
        with _alone():
            self._unmake()
            for each in _CLAIMS.glob("*"):
                if each.readlink() == self._folder:
                    each.unlink()
            for folder in (_CLAIMS, _CLAIMS.parent):
                with contextlib.suppress(OSError):  # another rack's are there
                    folder.rmdir()

    def plug(self, address: str, pid: int) -> None:
        """A cable for the host whose PID 1 this is, as its eth0. One that was there goes first: a dead namespace's end
        is taken away only a little later (namespaces(7))."""
        cable = _cable(address)
        self.unplug(address)
        # A host keeps its network card when it boots again: the others still know the MAC.
        mac = "02:4c:" + ":".join(f"{int(byte):02x}" for byte in address.split("."))
        card = ("name", "eth0", "address", mac, "netns", str(pid))
        self._switch("link", "add", cable, "type", "veth", "peer", *card)
        self._switch("link", "set", cable, "master", "under0", "up")
        inside = f"link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\n"
        run("nsenter", f"--net=/proc/{pid}/ns/net", "ip", "-batch", "-", stdin=inside)

    def unplug(self, address: str) -> None:
        with contextlib.suppress(ShoalError):
            self._switch("link", "del", _cable(address))

    def connect(self, address: str, *, up: bool) -> None:
        self._switch("link", "set", _cable(address), "up" if up else "down")

    def connected(self, address: str) -> bool:
        return "UP" in json.loads(self._switch("-j", "link", "show", _cable(address)))[0]["flags"]

    def _claim(self, taken: set[str]) -> str:
        _CLAIMS.mkdir(parents=True, exist_ok=True)
        for each in sorted(_CLAIMS.iterdir()):
            if each.readlink() == self._folder:
                return each.name
            if each.exists():
                taken.add(each.name)
            else:
                each.unlink()
        free = next((each for each in _SUBNETS if each not in taken), None)
        if free is None:
            raise Exhausted("every subnet of 198.18.0.0/15 belongs to a rack of hosts inside this machine")
        (_CLAIMS / free).symlink_to(self._folder)
        return free

    def _make(self, subnet: str) -> None:
        self._namespace.parent.mkdir(parents=True, exist_ok=True)
        self._namespace.touch()
        run("unshare", f"--net={self._namespace}", "ip", "link", "add", "under0", "type", "bridge")
        self._switch("link", "set", "under0", "up")
        peer = ("peer", "name", "uplink", "netns", str(self._namespace))
        run("ip", "link", "add", self._uplink, "type", "veth", *peer)
        self._switch("link", "set", "uplink", "master", "under0", "up")
        run("ip", "link", "set", self._uplink, "up")
        # Last: an underlay whose address is there is whole.
        run("ip", "addr", "add", f"{subnet}.1/24", "dev", self._uplink)

    def _unmake(self) -> None:
        """Its namespace goes with the last mount of it, and all cables with that."""
        for argv in (("ip", "link", "del", self._uplink), ("umount", str(self._namespace))):
            with contextlib.suppress(ShoalError):
                run(*argv)
        self._namespace.unlink(missing_ok=True)

    def _switch(self, *argv: str) -> str:
        """Run `ip` where the underlay is."""
        return run("nsenter", f"--net={self._namespace}", "ip", *argv)


def _cable(address: str) -> str:
    """The underlay's end of a host's cable."""
    return f"host{address.rsplit('.', 1)[1]}"


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Whoever makes or removes an underlay locks the folder /run itself: that leaves no file behind."""
    descriptor = os.open("/run", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
