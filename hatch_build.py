"""Generates `shoal/v1/*_pb2*.py[i]` from `proto/` whenever the project is built or installed.

The files are git-ignored: they carry a version guard of the compiler that made them, and the
contract that people read and review is `proto/`. `python hatch_build.py` does the same by hand.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand, without hatchling
    BuildHookInterface = object


def generate(root: Path) -> None:
    """Compile every file under `root/proto` into `root/shoal/v1`; raises RuntimeError when protoc refuses."""
    from grpc_tools import protoc  # only in the build environment

    target = root / "shoal" / "v1"
    target.mkdir(exist_ok=True)
    sources = sorted(str(p.relative_to(root / "proto")) for p in (root / "proto").rglob("*.proto"))
    wanted = {f"{Path(s).stem}_pb2" for s in sources}
    for stale in target.glob("*_pb2*"):
        if stale.name.split(".")[0].removesuffix("_grpc") not in wanted:
            stale.unlink()
    # protoc looks for its plugins on PATH; a venv that is not activated is not there.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    out = str(root)
    code = protoc.main(
        [
            "protoc",
            f"-I{root / 'proto'}",
            f"--python_out={out}",
            f"--grpc_python_out={out}",
            f"--mypy_out={out}",
            f"--mypy_grpc_out={out}",
            *sources,
        ]
    )
    if code != 0:
        raise RuntimeError(f"protoc refused proto/ with code {code}; its messages stand above")
    (target / "__init__.py").write_text('"""Wire messages and stubs, generated from `proto/`. Not edited."""\n')


class Protobuf(BuildHookInterface):  # type: ignore[misc,valid-type]
    """Hatchling's build hook (https://hatch.pypa.io/latest/plugins/build-hook/reference/)."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        generate(Path(self.root))


if __name__ == "__main__":
    generate(Path(__file__).parent)
