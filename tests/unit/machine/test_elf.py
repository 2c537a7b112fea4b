"""Libraries without what is never loaded: they are smaller, and do what they did."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from machine import elf


def library(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin)


def test_a_library_with_debugging_information_is_smaller_and_still_loads(tmp_path: Path) -> None:
    original = library("uvloop.loop")
    bare = tmp_path / original.name
    bare.write_bytes(elf.loaded(original.read_bytes()))
    assert bare.stat().st_size < original.stat().st_size / 2
    assert elf.loaded(bare.read_bytes()) == bare.read_bytes()
    script = (
        "import importlib.machinery, importlib.util, sys\n"
        "loader = importlib.machinery.ExtensionFileLoader('uvloop.loop', sys.argv[1])\n"
        "spec = importlib.util.spec_from_file_location('uvloop.loop', sys.argv[1], loader=loader)\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(module)\n"
        "print(module.Loop)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, bare], capture_output=True, text=True)
    assert done.stdout.startswith("<class"), done.stderr


def test_what_is_no_library_is_left_as_it_is() -> None:
    for data in (b"", b"\x7fELF", b"GROUP ( libc.so.6 )", b"\x7fELF\x01\x01" + bytes(60)):
        assert elf.loaded(data) == data
