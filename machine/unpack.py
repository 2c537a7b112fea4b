"""Unpack: the program that a host runs to install an artefact; its text is sent, and the host's own Python runs it.

Arguments: archive, its SHA-256, the version's folder, the interpreter. It imports the standard library alone, and the
zstandard that comes first in the archive; it says in one sentence what goes wrong. The folder appears whole under its
name or not at all; its interpreter is a virtual environment's (PEP 405), so that a program of one version never sees
modules of another.
"""

import hashlib
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

PROGRAMS = {"shoal": "cli", "shoal-agent": "agent", "shoal-manager": "manager", "shoal-runtime": "runtime"}
CHUNK = 1 << 20


def main(archive: Path, sha256: str, folder: Path, python: Path) -> None:
    """Exits 1 with a sentence for an archive that is not the one that was sent."""
    with archive.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            sys.exit(f"{archive} is not what was sent; is the disk full?")
    beside = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    site = beside / "lib" / python.name / "site-packages"
    site.mkdir(parents=True)
    (beside / "bin").mkdir()
    extract(archive, site)
    for name in ("python", "python3", python.name):
        (beside / "bin" / name).symlink_to(python)
    (beside / "pyvenv.cfg").write_text(f"home = {python.parent}\ninclude-system-site-packages = false\n")
    for name, entry in PROGRAMS.items():
        program = beside / "bin" / name
        program.write_text(f"#!{folder}/bin/python\nfrom shoal.__main__ import {entry}\n\n{entry}()\n")
        program.chmod(0o755)
    (beside / ".complete").touch()
    # The disk of this folder alone (syncfs(2)): a version that is called complete is so after a power cut, too.
    subprocess.run(["sync", "-f", str(beside)], check=True)
    shutil.rmtree(folder, ignore_errors=True)
    beside.rename(folder)
    archive.unlink()


def extract(archive: Path, site: Path) -> None:
    """What we made ourselves, and whose checksum was right: folders and files of nobody's, with nothing to set but what
    is in them, which extractall() takes twice as long for."""
    with tarfile.open(archive) as packed:
        for member in packed:
            if member.name.endswith(".zst"):
                sys.path.insert(0, str(site))
                from zstandard import ZstdDecompressor

                content = packed.extractfile(member)
                assert content is not None
                with (
                    ZstdDecompressor().stream_reader(content) as stream,
                    tarfile.open(fileobj=stream, mode="r|") as rest,
                ):
                    for each in rest:
                        write(rest, each, site)
            else:
                write(packed, member, site)


def write(packed: tarfile.TarFile, member: tarfile.TarInfo, site: Path) -> None:
    """One of them; a folder comes before what is in it."""
    path = site / member.name
    content = packed.extractfile(member)
    if content is None:
        path.mkdir(exist_ok=True)
        return
    with path.open("wb", buffering=0) as file:
        shutil.copyfileobj(content, file, CHUNK)


ARCHIVE, FOLDER = Path(sys.argv[1]), Path(sys.argv[3])
try:
    main(ARCHIVE, sys.argv[2], FOLDER, Path(sys.argv[4]))
except OSError as error:
    # A disk that is full has what was done so far taken off again.
    shutil.rmtree(FOLDER.with_name(f"{FOLDER.name}.new"), ignore_errors=True)
    ARCHIVE.unlink(missing_ok=True)
    sys.exit(f"{FOLDER} cannot be written: {error.strerror}")
