"""Unpacking a layer, hashed on the way and in a child that is locked in, beside `tar -xz` of the same file into the
same file system. A rate: higher is better."""

from __future__ import annotations

import gzip
import io
import random
import shutil
import subprocess
import tarfile
import tempfile
import threading
from pathlib import Path

from agent.image import layer
from agent.image.layer import Place
from agent.image.unpacker import Unpacker
from tests.bench.row import Row, in_turns, row

TIMES = 3
FOLDERS, FILES = 100, 20
SIZES = (200, 2_000, 9_000, 40_000)


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="shoal-unpack-") as name:
        folder = Path(name)
        packed = folder / "layer.tar.gz"
        plain_bytes = write_layer(packed)
        target = folder / "target"

        def ours() -> None:
            shutil.rmtree(target, ignore_errors=True)
            place = Place(target / "upper", target / "work", target / "mount", folder, ())
            for each in (place.upper, place.work, place.mount):
                each.mkdir(parents=True)
            with packed.open("rb") as blob, Unpacker() as unpacker:
                layer.unpack(blob, place, unpacker=unpacker, stop=threading.Event(), progress=lambda _: None)

        def peer() -> None:
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            subprocess.run(["tar", "-xzf", packed, "-C", target], check=True)

        taken = in_turns(ours, peer, TIMES)
    mine, theirs = ([plain_bytes / 1e3 / milliseconds for milliseconds in side] for side in taken)
    return [row("unpack.vs_tar", mine, theirs, "MB/s")]


def write_layer(path: Path) -> int:
    """2,000 files of some kilobytes, half of whose bytes repeat; how many bytes that is unpacked."""
    chance, total = random.Random(1), 0
    with gzip.open(path, "wb", compresslevel=1) as packed, tarfile.open(fileobj=packed, mode="w|") as tar:
        for number in range(FOLDERS):
            info = tarfile.TarInfo(f"usr/lib/d{number}")
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
            for file in range(FILES):
                data = chance.randbytes(chance.choice(SIZES)) * 2
                info = tarfile.TarInfo(f"usr/lib/d{number}/f{file}")
                info.size = len(data)
                total += info.size
                tar.addfile(info, io.BytesIO(data))
    return total
