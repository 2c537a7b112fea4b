"""Seed: the disk from which a new machine learns its name, keys and addresses; bytes from values.

Our own Debian unpacks a tar over its root, once (`base` has the unit). An image's cloud-init reads a CD of the name
"cidata" (cloud-init's NoCloud). It holds the machine's private key: its file is for its owner alone.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

from machine.drivers.qemu import cd
from machine.drivers.qemu.keys import Key
from machine.drivers.qemu.vm import mac_of

# QEMU's user network: what it gives to the one machine on it, and where it answers.
_WAY = "10.0.2.15/24"
_GATEWAY = "10.0.2.2"


def for_debian(name: str, address: str, *, login: Key, host: Key) -> bytes:
    """A tar for the root."""
    way = f"[Match]\nMACAddress={mac_of(address, of_way=True)}\n[Network]\nAddress={_WAY}\nGateway={_GATEWAY}\n"
    others = f"[Match]\nMACAddress={mac_of(address)}\n[Network]\nAddress={address}\n"
    files = {
        "etc/hostname": (0o644, f"{name}\n"),
        "etc/hosts": (0o644, f"127.0.0.1 localhost\n127.0.1.1 {name}\n::1 localhost\n"),
        "etc/ssh/ssh_host_ed25519_key": (0o600, host.private),
        "etc/ssh/ssh_host_ed25519_key.pub": (0o644, f"{host.public}\n"),
        "etc/systemd/network/10-way.network": (0o644, way),
        "etc/systemd/network/10-others.network": (0o644, others),
        "root/.ssh/authorized_keys": (0o600, f"{login.public}\n"),
    }
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for path, (mode, text) in files.items():
            member = tarfile.TarInfo(path)
            member.mode, member.size = mode, len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return packed.getvalue()


def for_cloud_init(name: str, address: str, *, login: Key, host: Key) -> bytes:
    """A CD. JSON is YAML, too."""
    told = {
        "hostname": name,
        "disable_root": False,
        "ssh_authorized_keys": [login.public],
        "ssh_deletekeys": True,
        "ssh_keys": {"ed25519_private": host.private, "ed25519_public": host.public},
    }
    links = {
        "way": {"match": {"macaddress": mac_of(address, of_way=True)}, "dhcp4": True},
        "others": {"match": {"macaddress": mac_of(address)}, "addresses": [address]},
    }
    # Another one, and cloud-init begins anew.
    instance = hashlib.sha256(host.public.encode()).hexdigest()[:16]
    files = {
        "meta-data": json.dumps({"instance-id": f"shoal-{instance}", "local-hostname": name}),
        "network-config": json.dumps({"version": 2, "ethernets": links}),
        "user-data": f"#cloud-config\n{json.dumps(told)}\n",
    }
    return cd.image("cidata", {key: text.encode() for key, text in files.items()})
