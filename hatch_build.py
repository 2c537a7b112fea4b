"""Generates `shoal/v1` and `shoal/etcd/v3` from `proto/` whenever the project is built or installed.

The files are git-ignored: the contract that people read and review is `proto/`. `python hatch_build.py` does the same
by hand. Of protoc's own modules of messages only the types are taken; what is imported is a few lines (`_MODULE`), for
`shoal/contract.py` says why.
"""

from __future__ import annotations

import compileall
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand, without hatchling
    BuildHookInterface = object


_MODULE = '''\
"""What {source} says, compiled. Not edited."""

from shoal.contract import define
{imports}
DESCRIPTOR = define(
    {compiled!r},
    globals(),
)
'''


def generate(root: Path) -> None:
    """Compile every file under `root/proto`; `proto/shoal/v1` becomes `shoal/v1`, and so on. Raises RuntimeError when
    protoc refuses."""
    from grpc_tools import protoc  # only in the build environment

    sources = sorted(path.relative_to(root / "proto") for path in (root / "proto").rglob("*.proto"))
    for package in {source.parent for source in sources}:
        _prepare(root / package, {f"{source.stem}_pb2" for source in sources if source.parent == package})
    # protoc looks for its plugins on PATH; a venv that is not activated is not there.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    with tempfile.NamedTemporaryFile() as compiled:
        code = protoc.main(
            [
                "protoc",
                f"-I{root / 'proto'}",
                f"--descriptor_set_out={compiled.name}",
                f"--grpc_python_out={root}",
                f"--mypy_out={root}",
                f"--mypy_grpc_out={root}",
                *map(str, sources),
            ]
        )
        if code != 0:
            raise RuntimeError(f"protoc refused proto/ with code {code}; its messages stand above")
        _write_modules(root, compiled.read())
    for package in {source.parent for source in sources}:
        compileall.compile_dir(root / package, quiet=1)  # whoever may not write there would do it at every start


def _write_modules(root: Path, compiled: bytes) -> None:
    """One for each file in a FileDescriptorSet."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet  # only in the build environment

    for file in FileDescriptorSet.FromString(compiled).file:
        imports = "".join(f"import {_module(each).replace('/', '.')}  # noqa: F401\n" for each in file.dependency)
        text = _MODULE.format(source=f"proto/{file.name}", imports=imports, compiled=file.SerializeToString())
        (root / f"{_module(file.name)}.py").write_text(text)


def _module(source: str) -> str:
    return f"{source.removesuffix('.proto')}_pb2"


def _prepare(target: Path, wanted: set[str]) -> None:
    """A package without what an earlier contract left in it."""
    target.mkdir(parents=True, exist_ok=True)
    for stale in target.glob("*_pb2*"):
        if stale.name.split(".")[0].removesuffix("_grpc") not in wanted:
            stale.unlink()
    (target / "__init__.py").write_text('"""Wire messages and stubs, generated from `proto/`. Not edited."""\n')


class Protobuf(BuildHookInterface):  # type: ignore[misc,valid-type]
    """Hatchling's build hook (https://hatch.pypa.io/latest/plugins/build-hook/reference/)."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        generate(Path(self.root))


if __name__ == "__main__":
    generate(Path(__file__).parent)
