"""Artefact: Shoal with everything that it needs, as one file that a host unpacks without the internet.

It is a tree of site-packages for one version of Python and one architecture, compiled; the host's own interpreter runs
it (`unpack` makes that). The file is a tar of two things: zstandard as it is, and by it all the rest, for half of what
gzip would cost a host. For this computer's Python it is made of what is installed here, so that a host gets exactly the
versions that were tested; for another one pip downloads the same versions. Made once, and kept by the name of its
content.
"""

from __future__ import annotations

import compileall
import fcntl
import hashlib
import importlib.metadata
import os
import platform
import py_compile
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import shoal
from machine import elf
from shoal import __version__
from shoal.errors import ShoalError, Unavailable

_OWN_MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"
_ROOMS = ("manager", "agent", "machine", "cli")
# What nobody on a host runs or compiles; zstandard has all of it once more for interpreters but CPython, and of numpy
# arrays are wanted, and no mathematics.
_LEFT_OUT = re.compile(
    r"(^|/)(tests?|__pycache__|f2py)/|\.(pyi|c|h|a|pxd|pyx|pyc)$|^zstandard/_cffi\."
    r"|^numpy/(fft|ma|polynomial|random|testing)/|^numpy/_core/_(simd|\w+_tests)\."
)
_LIBRARY = re.compile(r"\.so(\.[0-9]+)*$")
# Past it, a second of this computer's saves nobody one.
_LEVEL = 9
_FIRST, _REST = "zstandard", "rest.tar.zst"
_KEPT = 4


class Target(NamedTuple):
    """The interpreter that is to run it: its minor version and the host's architecture, as uname says it."""

    python: str
    architecture: str


class Artefact(NamedTuple):
    """`version` names the content: it is the folder on the host."""

    version: str
    path: Path
    sha256: str

    @property
    def size_bytes(self) -> int:
        return self.path.stat().st_size


def version_for(target: Target) -> str:
    """The version that would be made now; reads Shoal's own files and nothing else."""
    digest = hashlib.sha256(f"{target.python} {target.architecture} zstd {_LEVEL}\n".encode())
    for name, path in _own_files():
        digest.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    for each in _needed():
        digest.update(f"{each.name}=={each.version}\n".encode())
    return f"{__version__}-{digest.hexdigest()[:12]}"


def obtain(target: Target, cache: Path) -> Artefact:
    """The artefact, from the cache or made anew. Raises Unavailable when it would have to be downloaded and cannot."""
    version = version_for(target)
    path = cache / f"shoal-{version}-py{target.python}-{target.architecture}.tar"
    checksum = path.with_suffix(".sha256")
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not checksum.exists():
            with tempfile.TemporaryDirectory(dir=cache) as folder:
                fresh = _build(target, Path(folder))
                checksum_text = hashlib.sha256(fresh.read_bytes()).hexdigest()
                fresh.replace(path)
            checksum.write_text(checksum_text)
            _forget(cache)
    return Artefact(version, path, checksum.read_text())


def _build(target: Target, folder: Path) -> Path:
    tree = folder / "tree"
    tree.mkdir()
    if target == Target(_OWN_MINOR, platform.machine()):
        for each in _needed():
            _copy(each, tree)
    else:
        _download(target, tree)
    for name, path in _own_files():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, tree / name)
    for path in tree.rglob("*"):
        if _LIBRARY.search(path.name):
            path.write_bytes(elf.loaded(path.read_bytes()))
    if target.python == _OWN_MINOR:
        # Without times in them, so that they hold wherever they are unpacked.
        mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
        compileall.compile_dir(tree, quiet=2, invalidation_mode=mode, stripdir=str(tree), workers=2)
    packed = folder / "artefact"
    pack(tree, packed)
    return packed


def pack(tree: Path, packed: Path) -> None:
    """A tree of site-packages that has zstandard, as one file; what is beside that is used on the way."""
    from zstandard import ZstdCompressor

    rest = packed.with_name(_REST)
    with (
        rest.open("wb") as file,
        ZstdCompressor(level=_LEVEL, threads=-1).stream_writer(file) as stream,
        tarfile.open(fileobj=stream, mode="w|") as archive,
    ):
        archive.add(tree, ".", filter=lambda member: None if _is_first(member) else _anonymous(member))
    with tarfile.open(packed, "w") as archive:
        archive.add(tree / _FIRST, _FIRST, filter=_anonymous)
        archive.add(rest, _REST, filter=_anonymous)
    rest.unlink()


def _copy(distribution: importlib.metadata.Distribution, tree: Path) -> None:
    """What pip installed of one; its scripts lie outside of the tree and stay here."""
    for each in distribution.files or ():
        name = str(each)
        if name.startswith("..") or _LEFT_OUT.search(name):
            continue
        source = Path(str(distribution.locate_file(each)))
        if source.is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, tree / name)


def _download(target: Target, tree: Path) -> None:
    """The same versions for another interpreter, from where pip gets them."""
    platforms = [f"manylinux_2_{minor}_{target.architecture}" for minor in (34, 28, 17)]
    platforms.append(f"manylinux2014_{target.architecture}")
    argv = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--no-compile"]
    argv += ["--target", str(tree), "--only-binary=:all:", "--python-version", target.python, "--implementation", "cp"]
    argv += [word for each in platforms for word in ("--platform", each)]
    argv += [f"{each.name}=={each.version}" for each in _needed()]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise Unavailable(
            f"what a host with Python {target.python} on {target.architecture} needs cannot be downloaded: {said}",
            hint="run this where pip reaches its index, or use hosts with this computer's Python",
        )


def _own_files() -> Iterator[tuple[str, Path]]:
    """Shoal's modules by their name in the tree, whether it is installed or run from its sources."""
    assert shoal.__file__ is not None
    package = Path(shoal.__file__).parent
    for path in sorted(package.rglob("*.py")):
        yield f"shoal/{path.relative_to(package)}", path
    if (package / "_rooms").is_dir():
        return
    for room in _ROOMS:
        for path in sorted((package.parent / room).rglob("*.py")):
            yield f"shoal/_rooms/{path.relative_to(package.parent)}", path


def _needed() -> list[importlib.metadata.Distribution]:
    """What Shoal needs, and what that needs, by name, without Shoal itself."""
    from packaging.requirements import Requirement

    found: dict[str, importlib.metadata.Distribution] = {}
    left = ["shoal"]
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if name in found:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError as error:
            raise ShoalError(f"the package {name}, which Shoal needs, is not installed here") from error
        wanted = map(Requirement, found[name].requires or ())
        left += [each.name for each in wanted if each.marker is None or each.marker.evaluate({"extra": ""})]
    del found["shoal"]
    return [found[name] for name in sorted(found)]


def _is_first(member: tarfile.TarInfo) -> bool:
    return member.name == f"./{_FIRST}" or member.name.startswith(f"./{_FIRST}/")


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """The same bytes whoever makes it, and readable by all."""
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    member.mode = 0o755 if member.isdir() else 0o644
    return member


def _forget(cache: Path) -> None:
    """Keep the last few."""
    for old in sorted(cache.glob("shoal-*.tar"), key=os.path.getmtime)[:-_KEPT]:
        old.with_suffix(".sha256").unlink(missing_ok=True)
        old.unlink()
