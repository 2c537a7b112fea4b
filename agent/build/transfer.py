"""Files into a step's layer: from a context, from another stage or image, from an archive. Blocks: for a thread.

`placer` and `gatherer` are the children that do it, each locked inside the root that it looks at; here is how they are
started and what their complaints come to.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from agent.build.gatherer import Wish
from agent.build.placer import Order
from agent.build.tree import Source
from agent.image import child as children
from agent.image import content
from agent.image.layer import Place
from shoal.errors import InvalidArgument, NotFound, ShoalError

_CHUNK = 1 << 18


def order_of(
    place: Place,
    target: str,
    *,
    several: bool = False,
    owner: tuple[int, int] | None = None,
    mode: int | None = None,
    files: str = "",
    plain: bool = False,
) -> Order:
    where = {
        "upper": str(place.upper),
        "work": str(place.work),
        "mount": str(place.mount),
        "layers": str(place.layers),
        "lower": place.lower,
    }
    return Order(where, target, several, owner, mode, files, plain, strict=False)


def place_files(order: Order, sources: Iterable[Source]) -> None:
    """From the folder of contents that the order names."""

    def lines() -> Iterator[bytes]:
        for source in sources:
            if source.folder:
                yield b'["d", 16877, 0, 0, "", ""]\n'
            for each in source.entries:
                name = f"{'d' if source.folder else 'f'}/{each.path}"
                fields = (name, each.mode, each.size, each.mtime_ns, each.digest, each.link)
                yield json.dumps(fields).encode() + b"\n"

    _place(order, lines())


def place_archive(order: Order, chunks: Iterable[bytes]) -> None:
    """A plain archive, taken apart below the target."""
    _place(order, chunks)


def place_gathered(order: Order, wish: Wish) -> None:
    """What the wish finds, by a pipe from one child to the other."""
    with _gathering(wish) as pipe:
        _place(order, iter(lambda: pipe.read(_CHUNK), b""))


def gathered_digest(wish: Wish) -> str:
    """The content that a wish finds, as one digest, whatever its times."""
    with _gathering(wish._replace(digest=True)) as pipe:
        return "sha256:" + pipe.read().decode()


async def exported(layers: Sequence[str], mount: str) -> AsyncGenerator[bytes, None]:
    """A tar of all that these layers come to."""
    gathering = _gathering(Wish(tuple(layers), mount, (), bare=True))
    pipe = await asyncio.to_thread(gathering.__enter__)
    try:
        while piece := await asyncio.to_thread(pipe.read, _CHUNK):
            yield piece
    except BaseException as error:
        with contextlib.suppress(type(error)):
            gathering.__exit__(type(error), error, error.__traceback__)
        raise
    await asyncio.to_thread(gathering.__exit__, None, None, None)


def wish_of(
    layers: Sequence[str], mount: str, sources: Sequence[str], exclude: Sequence[str] = (), *, parents: bool = False
) -> Wish:
    return Wish(tuple(layers), mount, tuple(sources), tuple(exclude), parents)


def _place(order: Order, chunks: Iterable[bytes]) -> None:
    """Raises InvalidArgument for what the child refuses, Exhausted for a full disk."""
    # A volatile overlay can be mounted again only without this mark of the last time (overlayfs.rst, "Volatile mount").
    shutil.rmtree(Path(order.place["work"], "work", "incompat"), ignore_errors=True)
    child = _start("placer", [], stdin=subprocess.PIPE)
    assert child.stdin is not None
    try:
        # A child that refuses stops reading; what it says then counts, not the broken pipe.
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(json.dumps(order._asdict()).encode() + b"\n")
            for chunk in chunks:
                child.stdin.write(chunk)
            child.stdin.flush()
        said, complaint = _ended(child)
    except BaseException:
        child.kill()
        child.wait()
        raise
    if child.returncode:
        answer = _answer("placing", child.returncode, said, complaint)
        content.raise_full(answer["errno"], "cannot copy")
        raise InvalidArgument(str(answer["error"]))


def _ended(child: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    with contextlib.suppress(BrokenPipeError):
        return child.communicate()
    return child.communicate()


@contextlib.contextmanager
def _gathering(wish: Wish) -> Iterator[IO[bytes]]:
    """What a child finds. Raises NotFound for a source that is not there."""
    child = _start("gatherer", [json.dumps(wish._asdict())], stdin=subprocess.DEVNULL)
    assert child.stdout is not None
    assert child.stderr is not None
    try:
        yield child.stdout
        child.stdout.close()
        complaint = child.stderr.read()
        child.wait()
    except BaseException:
        child.kill()
        child.wait()
        child.stdout.close()
        raise
    finally:
        child.stderr.close()
    if child.returncode:
        answer = _answer("gathering", child.returncode, complaint, complaint)
        if answer["missing"]:
            raise NotFound(f'"{answer["error"]}": not found')
        raise InvalidArgument(str(answer["error"]))


def _start(module: str, arguments: Sequence[str], *, stdin: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        children.argv(f"agent.build.{module}", *arguments),
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={},
    )


def _answer(task: str, code: int, said: bytes, complaint: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(said)
    except ValueError as error:
        last = complaint.decode(errors="replace").strip().rpartition("\n")[2]
        raise ShoalError(f"the {task} process ended with code {code}: {last or 'no message'}") from error
    return found
