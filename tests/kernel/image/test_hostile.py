"""What strangers put into layers and archives to get at the host: refused, or contained; the host's files stay.

The corpus is that of the flaws that engines had: names that climb, links that lead out, entries that change what other
entries meant, numbers that lie, and documents that are two things at once.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shoal.errors import ShoalError
from tests.kernel.image.conftest import Store, archive, member, pieces, tree

pytestmark = pytest.mark.kernel
Members = list[tuple[tarfile.TarInfo, bytes]]
UP = "../" * 40
FOLDER, LINK, HARD, CHAR = tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE
CONTAINED, REFUSED = "contained", "refused"


def file(name: str, data: bytes = b"x", **pax: str) -> tuple[tarfile.TarInfo, bytes]:
    info = member(name)
    info.pax_headers = pax
    return info, data


def link(name: str, target: str, kind: bytes = LINK) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, kind, target), b""


def device(name: str, major: int, minor: int, kind: bytes = CHAR) -> tuple[tarfile.TarInfo, bytes]:
    info = member(name, kind, mode=0o666)
    info.devmajor, info.devminor = major, minor
    return info, b""


def chain(length: int, end: str) -> Members:
    return [link(f"c{at}", f"c{at + 1}") for at in range(length)] + [link(f"c{length}", end), file("c0/x")]


# Name → (what becomes of it, the members, given the path of a folder of the host's).
LAYERS: dict[str, tuple[str, Callable[[str], Members]]] = {
    "a name that climbs": (REFUSED, lambda out: [file(f"{UP}{out}/x".replace("//", "/"))]),
    "a name that climbs later": (REFUSED, lambda out: [file(f"a/../../..{out}/x")]),
    "an absolute name": (CONTAINED, lambda out: [file(f"{out}/x")]),
    "a name of 256 bytes": (REFUSED, lambda _: [file("n" * 256)]),
    "a path of 5,000 bytes": (REFUSED, lambda _: [file("d/" * 2500 + "x")]),
    "no name": (REFUSED, lambda _: [file("")]),
    "the root as a file": (REFUSED, lambda _: [file(".")]),
    "the root as a link": (REFUSED, lambda out: [link("./", out)]),
    "through a link": (CONTAINED, lambda out: [link("l", out), file("l/x")]),
    "through a link that climbs": (CONTAINED, lambda out: [link("l", f"{UP}{out}"), file("l/x")]),
    "through a link in a folder": (
        CONTAINED,
        lambda out: [(member("d", FOLDER), b""), link("d/l", out), file("d/l/x")],
    ),
    "through a chain of links": (CONTAINED, lambda out: chain(30, out)),
    "through a chain that is too long": (REFUSED, lambda out: chain(60, out)),
    "through links in a circle": (REFUSED, lambda _: [link("a", "b"), link("b", "a"), file("a/x")]),
    "through /proc": (CONTAINED, lambda out: [link("l", f"/proc/self/root{out}"), file("l/x")]),
    "a link becomes a folder": (CONTAINED, lambda out: [link("d", out), (member("d", FOLDER, mode=0o700), b"")]),
    "a folder becomes a link": (CONTAINED, lambda out: [(member("d", FOLDER), b""), link("d", out), file("d/x")]),
    "a file becomes a folder": (CONTAINED, lambda _: [file("d"), (member("d", FOLDER), b""), file("d/x")]),
    "a file that is a folder": (REFUSED, lambda _: [file("d"), file("d/x")]),
    "a folder in a link that leads nowhere": (CONTAINED, lambda _: [link("l", "/no/where"), file("l/x")]),
    "a hard link out": (REFUSED, lambda out: [link("h", f"{out}/kept", HARD), file("h", b"spoilt")]),
    "a hard link that climbs": (REFUSED, lambda out: [link("h", f"{UP}{out}/kept", HARD), file("h", b"spoilt")]),
    "a hard link through a link": (REFUSED, lambda out: [link("l", out), link("h", "l/kept", HARD), file("h", b"y")]),
    "a hard link to a link": (CONTAINED, lambda out: [link("l", f"{out}/kept"), link("h", "l", HARD), file("h", b"y")]),
    "a hard link to itself": (CONTAINED, lambda _: [file("a"), link("a", "a", HARD)]),
    "a hard link to a folder": (REFUSED, lambda _: [(member("d", FOLDER), b""), link("h", "d", HARD)]),
    "owner and mode through a link": (CONTAINED, lambda out: [link("l", f"{out}/kept"), file("l", b"y")]),
    "a whiteout of the root": (REFUSED, lambda _: [file(".wh.")]),
    "a whiteout of here": (REFUSED, lambda _: [file("a/.wh..")]),
    "a whiteout of above": (REFUSED, lambda _: [file("a/.wh...")]),
    "a whiteout through a link": (CONTAINED, lambda out: [link("d", out), file("d/.wh.kept")]),
    "an opaque link": (CONTAINED, lambda out: [link("d", out), file("d/.wh..wh..opq")]),
    "a whiteout that climbs": (REFUSED, lambda out: [file(f"{UP}{out}/.wh.kept")]),
    "overlayfs' device": (REFUSED, lambda _: [device("gone", 0, 0)]),
    "an impossible device": (REFUSED, lambda _: [device("d", 1 << 20, 1)]),
    "the disk as a device": (CONTAINED, lambda _: [device("sda", 8, 0, tarfile.BLKTYPE)]),
    "overlayfs' attributes": (
        CONTAINED,
        lambda out: [
            file("a", b"", **{"SCHILY.xattr.trusted.overlay.redirect": out}),
            file("b", b"", **{"SCHILY.xattr.user.overlay.opaque": "y", "SCHILY.xattr.trusted.overlay.metacopy": ""}),
        ],
    ),
    "twice the same name": (CONTAINED, lambda _: [file("a", b"1"), file("./a", b"2"), file("/a", b"3")]),
    "a name said otherwise": (CONTAINED, lambda out: [file("a", b"x", path=f"{out}/x")]),
    "a name with a zero byte": (REFUSED, lambda out: [file("a", b"x", path=f"{out}/x\0y")]),
    "a target said otherwise": (REFUSED, lambda out: [(_with(link("h", "h", HARD), linkpath=f"{out}/kept"), b"")]),
    "a sparse file that lies": (
        REFUSED,
        lambda _: [file("a", b"x", **{"GNU.sparse.map": "0,512,9,9", "GNU.sparse.realsize": "1"})],
    ),
    "an impossible owner": (REFUSED, lambda _: [(_owned(-1), b"")]),
    "2,000 folders deep": (CONTAINED, lambda _: [file("d/" * 2000 + "x")]),
}


def _with(entry: tuple[tarfile.TarInfo, bytes], **pax: str) -> tarfile.TarInfo:
    entry[0].pax_headers = pax
    return entry[0]


def _owned(uid: int) -> tarfile.TarInfo:
    info = member("owned")
    info.uid = uid
    return info


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of the host's that somebody is after."""
    folder = tmp_path / "outside"
    folder.mkdir(0o750)
    (folder / "kept").write_text("kept")
    (folder / "kept").chmod(0o640)
    (folder / "link").symlink_to("kept")
    return folder


async def brought(store: Store, data: bytes) -> str:
    try:
        image_id = await store.images.import_image(pieces(data))
    except ShoalError as error:
        assert "\0" not in error.message and "\x1b" not in error.message
        return REFUSED
    await store.images.remove(image_id)
    return CONTAINED


async def test_layers_that_are_after_the_host(store: Store, outside: Path) -> None:
    before, links = tree(outside), (outside / "kept").stat().st_nlink
    found = {name: await brought(store, archive(members(str(outside)))) for name, (_, members) in LAYERS.items()}
    assert found == {name: wanted for name, (wanted, _) in LAYERS.items()}
    assert tree(outside) == before
    assert (outside / "kept").stat().st_nlink == links
    assert store.files() == []


def damaged(field: slice, value: bytes) -> bytes:
    """One file whose header says something else in a field, with the right checksum."""
    data = bytearray(archive([file("a", b"x" * 600)]))
    data[field] = value.ljust(field.stop - field.start, b"\0")
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    return bytes(data)


SIZE, MTIME, KIND = slice(124, 136), slice(136, 148), slice(156, 157)
HEADERS = {
    "a negative size": (REFUSED, damaged(SIZE, b"\xff" * 12)),
    "a size without end": (REFUSED, damaged(SIZE, b"\x80" + b"\xff" * 11)),
    "a size that is none": (REFUSED, damaged(SIZE, b"9" * 11)),
    "more than there is": (REFUSED, damaged(SIZE, b"77777777777")),
    "a time before all time": (CONTAINED, damaged(MTIME, b"\xff" + b"\x80" * 11)),
    "an unknown kind": (REFUSED, damaged(KIND, b"Z")),
    "packed twice": (REFUSED, gzip.compress(gzip.compress(archive([file("a")])))),
    "cut off": (REFUSED, archive([file("a", b"x" * 5000)])[:3000]),
    "for all that follow": (CONTAINED, b""),  # filled below
}


def for_all(out: str) -> bytes:
    """What a global header says counts for nothing, as with docker."""
    info = member("a")
    info.size = 1
    said = tarfile.TarInfo.create_pax_global_header({"path": f"{out}/x", "linkpath": out})
    return said + info.tobuf(tarfile.PAX_FORMAT) + b"x".ljust(512, b"\0") + bytes(1024)


async def test_headers_that_lie(store: Store, outside: Path) -> None:
    before = tree(outside)
    cases = {**HEADERS, "for all that follow": (CONTAINED, for_all(str(outside)))}
    found = {name: await brought(store, data) for name, (_, data) in cases.items()}
    assert found == {name: wanted for name, (wanted, _) in cases.items()}
    assert tree(outside) == before
    assert store.files() == []


async def test_nobody_on_the_path_is_asked_to_unpack(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docker started whatever `xz` or `unpigz` it found."""
    trap = tmp_path / "bin"
    trap.mkdir()
    for name in ("xz", "gzip", "unpigz", "bzip2", "zstd", "tar"):
        (trap / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\n")
        (trap / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{trap}:{os.environ['PATH']}")
    import bz2
    import lzma

    for pack in (gzip.compress, lzma.compress, bz2.compress):
        assert await brought(store, pack(archive([file("a")]))) == CONTAINED
    assert not (tmp_path / "sprung").exists()


class Layout:
    """An OCI layout of one image with the layers given, which may be spoilt before it is written."""

    def __init__(self, *layers: bytes) -> None:
        self.blobs: dict[str, bytes] = {}
        self.layers = [self.blob(each, "application/vnd.oci.image.layer.v1.tar") for each in layers]
        self.config: dict[str, Any] = {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [each["digest"] for each in self.layers]},
        }
        self.manifest: dict[str, Any] = {"schemaVersion": 2, "layers": self.layers}
        self.index: dict[str, Any] = {"schemaVersion": 2}

    def blob(self, data: bytes, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    def written(self) -> bytes:
        config = self.blob(json.dumps(self.config).encode(), "application/vnd.oci.image.config.v1+json")
        whole = {"config": config, **self.manifest}
        manifest = self.blob(json.dumps(whole).encode(), "application/vnd.oci.image.manifest.v1+json")
        self.index = {"manifests": [manifest], **self.index}
        files = {f"blobs/sha256/{digest}": data for digest, data in self.blobs.items()}
        files |= {"index.json": json.dumps(self.index).encode(), "oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
        return archive([file(name, data) for name, data in files.items()])


def spoilt(change: Callable[[Layout], object]) -> bytes:
    layout = Layout(archive([file("a")]), archive([file("b")]))
    change(layout)
    return layout.written()


def set_in(where: dict[str, Any], **values: Any) -> None:
    where.update(values)


OTHER = "sha256:" + "0" * 64
DOCUMENTS: dict[str, Callable[[Layout], object]] = {
    "a layer that is not there": lambda it: set_in(it.layers[0], digest=OTHER),
    "a layer of another length": lambda it: set_in(it.layers[0], size=5),
    "a layer of a negative length": lambda it: set_in(it.layers[0], size=-1),
    "a layer that is said to unpack otherwise": lambda it: set_in(it.config["rootfs"], diff_ids=[OTHER, OTHER]),
    "a layer too few": lambda it: it.config["rootfs"]["diff_ids"].pop(),
    "a digest of another kind": lambda it: set_in(it.layers[0], digest="sha512:" + "0" * 128),
    "a digest in capitals": lambda it: set_in(it.layers[0], digest="sha256:" + "A" * 64),
    "a digest that is a path": lambda it: set_in(it.layers[0], digest="sha256:../../../etc/passwd"),
    "a configuration that is not there": lambda it: set_in(it.manifest, config={**it.layers[0], "digest": OTHER}),
    "a manifest that is an index too": lambda it: set_in(it.manifest, manifests=[]),
    "a manifest that is a layer": lambda it: set_in(it.index, manifests=[it.layers[0]]),
    "a layer from somewhere else": lambda it: set_in(
        it.layers[0],
        mediaType="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        urls=["http://127.0.0.1:1/"],
    ),
    "10,000 layers": lambda it: set_in(it.manifest, layers=it.layers * 5000),
    "a root that is no layers": lambda it: set_in(it.config["rootfs"], type="snapshot"),
    "no root": lambda it: it.config.pop("rootfs"),
    "lists within lists": lambda it: set_in(it.config, history=json.loads("[" * 900 + "]" * 900)),
    "a configuration of 5 MB": lambda it: set_in(it.config, author="x" * 5_000_000),
}


async def test_documents_that_lie(store: Store) -> None:
    for name, change in DOCUMENTS.items():
        with pytest.raises(ShoalError):
            await store.images.load(pieces(spoilt(change)))
            pytest.fail(f"{name}: it was taken")
        assert store.files() == [], name
    assert await store.images.load(pieces(spoilt(lambda _: None)))


async def test_an_archive_names_no_files_of_the_host(store: Store, outside: Path) -> None:
    """Its members are content, whatever they are called, and links among them lead to members alone."""
    listed = [{"Config": "config.json", "RepoTags": ["app:1"], "Layers": ["layer.tar"]}]
    for members in (
        [file("manifest.json", json.dumps(listed).encode()), link("config.json", f"{outside}/kept")],
        [file("manifest.json", json.dumps(listed).encode()), link("config.json", f"{UP}{outside}/kept", HARD)],
        [link("manifest.json", f"{outside}/kept")],
        [file(f"{UP}{outside}/x"), file("manifest.json", b"[{}]")],
    ):
        with pytest.raises(ShoalError):
            await store.images.load(pieces(archive(members)))
    assert sorted(os.listdir(outside)) == ["kept", "link"]
    assert store.files() == []


async def test_a_layer_cannot_reach_out_through_the_one_below(store: Store, outside: Path) -> None:
    """A folder that is a link in the layer below, one that becomes a link, and whiteouts on both."""
    before = tree(outside)
    below = archive([link("d", str(outside)), (member("e", FOLDER, mode=0o755), b""), file("e/x")])
    through = [file("d/new"), file("d/.wh.kept"), file("d/.wh..wh..opq")]
    becoming = [link("e", str(outside)), file("e/.wh.kept"), file("e/y")]
    ((_, image_id),) = await store.images.load(pieces(Layout(below, archive([*through, *becoming])).written()))
    assert tree(outside) == before
    top = store.layer(image_id)
    assert (top / "e").is_symlink()
    inside = top / str(outside).lstrip("/")
    assert sorted(path.name for path in inside.iterdir()) == ["new", "y"]
