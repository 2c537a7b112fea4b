"""What a source of COPY is called at its destination. Standard library only, for the children that copy."""

from __future__ import annotations

import posixpath


def called(path: str, wanted: str, *, parents: bool) -> str | None:
    """`path` is one that the source `wanted` means. With `--parents` it keeps its folders, those before a `/./` aside;
    None: it does not."""
    if not parents:
        return None
    before, pivot, _ = wanted.partition("/./")
    head = posixpath.normpath("/" + before.lstrip("/")) if pivot else "/"
    return "/".join(path.strip("/").split("/")[head.rstrip("/").count("/") :])
