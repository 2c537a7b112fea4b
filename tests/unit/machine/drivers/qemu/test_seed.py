"""The disk from which a new machine learns who it is."""

from __future__ import annotations

import io
import json
import struct
import subprocess
import tarfile
from pathlib import Path

from machine.drivers.qemu import cd, keys, seed
from machine.drivers.qemu.vm import mac_of

ADDRESS = "192.168.213.2/24"


def files_of(image: bytes) -> dict[str, bytes]:
    """What a reader of ISO 9660 finds: the folder is where the descriptor's record of the root says."""

    def number(at: int) -> int:
        little, big = image[at : at + 4], image[at + 4 : at + 8]
        assert little == big[::-1]
        return int(struct.unpack("<I", little)[0])

    descriptor = 16 * 2048
    assert image[descriptor : descriptor + 6] == b"\1CD001"
    assert len(image) == number(descriptor + 80) * 2048
    at = number(descriptor + 156 + 2) * 2048
    found = {}
    while image[at]:
        name = image[at + 33 : at + 33 + image[at + 32]].decode()
        start = number(at + 2) * 2048
        found[name] = image[start : start + number(at + 10)]
        at += image[at]
    return found


def test_a_cd_has_its_files_and_its_label() -> None:
    files = {"meta-data": b"x" * 5000, "user-data": b"", "network-config": b"y"}
    image = cd.image("cidata", files)
    found = files_of(image)
    assert {name: found[name] for name in files} == files
    assert image[16 * 2048 + 40 : 16 * 2048 + 72] == b"cidata".ljust(32)


def test_blkid_takes_it_for_what_cloud_init_looks_for(tmp_path: Path) -> None:
    (tmp_path / "cd").write_bytes(cd.image("cidata", {"meta-data": b"{}"}))
    said = subprocess.run(["blkid", "-p", "-o", "export", tmp_path / "cd"], check=True, capture_output=True, text=True)
    assert {"LABEL=cidata", "TYPE=iso9660"} <= set(said.stdout.split())


def test_cloud_init_hears_of_keys_name_and_addresses() -> None:
    login, host = keys.make(), keys.make()
    found = files_of(seed.for_cloud_init("vm1", ADDRESS, login=login, host=host))
    head, _, told = found["user-data"].decode().partition("\n")
    assert head == "#cloud-config"
    assert json.loads(told)["ssh_authorized_keys"] == [login.public]
    assert json.loads(told)["ssh_keys"]["ed25519_private"] == host.private
    assert json.loads(found["meta-data"])["local-hostname"] == "vm1"
    links = json.loads(found["network-config"])["ethernets"]
    assert links["others"] == {"match": {"macaddress": mac_of(ADDRESS)}, "addresses": [ADDRESS]}


def test_our_debian_unpacks_its_keys_for_root_alone() -> None:
    login, host = keys.make(), keys.make()
    with tarfile.open(fileobj=io.BytesIO(seed.for_debian("vm1", ADDRESS, login=login, host=host))) as archive:
        key = archive.getmember("etc/ssh/ssh_host_ed25519_key")
        assert (key.mode, key.uid, archive.extractfile(key).read().decode()) == (0o600, 0, host.private)  # type: ignore[union-attr]
        assert archive.extractfile("etc/hostname").read() == b"vm1\n"  # type: ignore[union-attr]


def test_a_key_is_as_ssh_keygen_has_it(tmp_path: Path) -> None:
    key = keys.make()
    (tmp_path / "key").write_text(key.private)
    (tmp_path / "key").chmod(0o600)
    said = subprocess.run(
        ["ssh-keygen", "-y", "-f", tmp_path / "key"], check=True, capture_output=True, text=True
    ).stdout
    assert said.split()[:2] == key.public.split()
    (tmp_path / "key.pub").write_text(key.public)
    shown = subprocess.run(
        ["ssh-keygen", "-l", "-f", tmp_path / "key.pub"], check=True, capture_output=True, text=True
    ).stdout
    assert key.fingerprint in shown
