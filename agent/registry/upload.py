"""Upload: one blob to a repository, in chunks. A connection that breaks is taken up where the registry says that it got
to; an upload that it has forgotten begins anew."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

import msgspec
from yarl import URL

from agent.registry.connection import Answer
from agent.registry.repository import Repository
from shoal.backoff import Backoff
from shoal.clock import Clock
from shoal.errors import InvalidArgument, NotFound, Unavailable

# What one request carries: enough that the answer's round trip does not count, and held in memory.
CHUNK_BYTES = 4 << 20
# How often in a row, without a byte more being there.
ATTEMPTS = 6
_FIRST_WAIT_S = 0.5
_LONGEST_WAIT_S = 5.0
_RANGE = re.compile(r"(?:bytes=)?0-(\d+)")


class Blob(msgspec.Struct, frozen=True):
    """What is to be sent; `read(offset, size)` gives as many bytes from there, fewer only at the end."""

    digest: str
    size: int
    read: Callable[[int, int], Awaitable[bytes]]


class _Place(msgspec.Struct):
    """Where an upload goes on, and how much of it is there."""

    url: URL
    offset: int = 0


async def upload(repository: Repository, blob: Blob, report: Callable[[int], None], *, clock: Clock) -> None:
    """Have the blob in the repository. `report` hears how much of it is out, and may hear less after a break."""
    backoff = Backoff(_FIRST_WAIT_S, _LONGEST_WAIT_S)
    place: _Place | None = None
    left, furthest = ATTEMPTS, 0
    while True:
        try:
            place = await _begin(repository) if place is None else await _look(repository, place)
            await _send(repository, blob, place, report)
            return
        except Unavailable:
            reached = place.offset if place is not None else 0
            left = ATTEMPTS if reached > furthest else left - 1
            furthest = max(furthest, reached)
            if not left:
                raise
        except (NotFound, InvalidArgument):
            # A registry that was started again may not know its own uploads any more.
            if place is None or not left:
                raise
            place, left = None, left - 1
        await clock.sleep(backoff.next())
        if place is None and await repository.has(blob.digest):
            return


async def _begin(repository: Repository) -> _Place:
    async with repository.connection.ask("POST", f"{repository.path}/blobs/uploads/", body=b"") as response:
        await repository.expect(response, 202)
        return _Place(_location(response))


async def _look(repository: Repository, place: _Place) -> _Place:
    """How far an upload came."""
    async with repository.connection.ask("GET", place.url) as response:
        await repository.expect(response, 204, 200)
        return _Place(_location(response, place.url), _taken(response))


async def _send(repository: Repository, blob: Blob, place: _Place, report: Callable[[int], None]) -> None:
    while place.offset < blob.size:
        start = place.offset
        data = await blob.read(start, CHUNK_BYTES)
        if not data:
            raise InvalidArgument(f"{blob.digest} ends at {start}, {blob.size} bytes were announced")
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Range": f"{start}-{start + len(data) - 1}",
        }
        async with repository.connection.ask(
            "PATCH",
            place.url,
            headers=headers,
            body=data,
            sent=lambda done, start=start: report(start + done),  # type: ignore[misc]
        ) as response:
            await repository.expect(response, 202, 204)
            place.url = _location(response, place.url)
            place.offset = _taken(response) if "Range" in response.headers else start + len(data)
        if place.offset <= start:
            raise Unavailable(f"registry {repository.connection.host} took nothing of {blob.digest}")
    url = place.url.update_query(digest=blob.digest)
    async with repository.connection.ask("PUT", url, body=b"") as response:
        await repository.expect(response, 201, 204)


def _location(response: Answer, known: URL | None = None) -> URL:
    said = response.headers.get("Location", "")
    if said:
        return response.url.join(URL(said, encoded=True))
    if known is None:
        raise Unavailable(f"registry {response.url.host} does not say where an upload goes")
    return known


def _taken(response: Answer) -> int:
    """How many bytes the registry has. "0-0" is what it says of none; that of a single byte is the same."""
    found = _RANGE.fullmatch(response.headers.get("Range", ""))
    last = int(found[1]) if found is not None else 0
    return last + 1 if last else 0
