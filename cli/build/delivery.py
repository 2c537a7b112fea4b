"""What comes of a build that is no image of the agent's: files in a folder, or a tar."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from cli.build.output import Output
from cli.output.screen import write_stdout
from shoal.errors import InvalidArgument


async def deliver(pieces: AsyncIterator[bytes], target: Output) -> None:
    """Put what comes of a build where `target` says."""
    if target.kind == "local":
        await _extracted(pieces, Path(target.target))
    elif target.target not in ("", "-"):
        with await asyncio.to_thread(Path(target.target).open, "wb") as file:
            async for piece in pieces:
                await asyncio.to_thread(file.write, piece)
    elif target.target == "-" and sys.stdout.isatty():
        raise InvalidArgument("refusing to write a tar to the terminal", hint="give dest=FILE, or redirect it")
    else:
        async for piece in pieces:
            write_stdout(piece)


async def _extracted(pieces: AsyncIterator[bytes], folder: Path) -> None:
    """Nothing is made before the build has gone well."""
    first = await anext(pieces, None)
    if first is None:
        return
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)

    async def all_of_it() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    from cli.container.extraction import extract  # what it stands on is for archives alone

    await extract(all_of_it(), str(folder), keep_owner=False)
