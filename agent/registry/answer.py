"""What a registry answers: bodies within bounds, and refusals in words, docker's where it has some and always with the
registry's own."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack

import aiohttp
import msgspec

from shoal.errors import Exhausted, InvalidArgument, NotFound, PermissionDenied, ShoalError, Unavailable
from shoal.reference import Reference

MAX_BYTES = 1 << 20
_CHUNK = 1 << 18


class _Error(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Errors(msgspec.Struct):
    errors: list[_Error] = []
    # What token services say instead.
    details: str = ""
    message: str = ""


async def read(response: aiohttp.ClientResponse, what: str, limit_bytes: int = MAX_BYTES) -> bytes:
    """The body as a whole. Raises InvalidArgument when it is longer than `limit_bytes`."""
    pieces, got = [], 0
    async for piece in response.content.iter_chunked(_CHUNK):
        got += len(piece)
        if got > limit_bytes:
            raise InvalidArgument(f"{what} has more than {limit_bytes} bytes")
        pieces.append(piece)
    return b"".join(pieces)


async def pieces(response: aiohttp.ClientResponse, skip: int, stack: AsyncExitStack) -> AsyncGenerator[bytes, None]:
    """The body without its first `skip` bytes; `stack` holds the response."""
    async with stack:
        async for chunk in response.content.iter_any():
            rest = chunk[skip:] if skip else chunk
            skip = max(0, skip - len(chunk))
            if rest:
                yield rest


def told(body: bytes) -> str:
    """The registry's own words, short and printable."""
    try:
        found = msgspec.json.decode(body, type=_Errors)
    except msgspec.MsgspecError:
        return ""
    text = "; ".join(": ".join(part for part in (each.code.lower().replace("_", " "), each.message) if part)
                     for each in found.errors[:3]) or found.details or found.message  # fmt: skip
    return "".join(c if c.isprintable() else "?" for c in text)[:300]


async def refusal(response: aiohttp.ClientResponse, host: str, reference: Reference | None, deed: str) -> ShoalError:
    """The error for an answer that is not what was asked for. `deed`: "pull" or "push"."""
    said = told(await read(response, "the registry's answer"))
    status = response.status
    if status == 404 and reference is not None and "/manifests/" in response.url.path:
        name = reference.with_default_tag().familiar
        return NotFound(f"manifest for {name} not found: {said or 'manifest unknown'}")
    if status == 404:
        return NotFound(f"registry {host} has no such content: {response.url.path.rpartition('/')[2]}")
    if status in (401, 403):
        hint = f"run `shoal login {reference.domain if reference is not None else host}` first"
        name = reference.familiar_name if reference is not None else host
        if deed == "push":
            return PermissionDenied(f"denied: requested access to {name} is denied: {said or 'denied'}", hint=hint)
        return PermissionDenied(
            f"pull access denied for {name}, repository does not exist or may require login: {said or 'denied'}",
            hint=hint,
        )
    if status == 429:
        later = response.headers.get("Retry-After", "")
        hint = f"try again in {later} s" if later.isdecimal() else "try later"
        return Exhausted(f"registry {host} refuses for now: {said or 'too many requests'}", hint=hint)
    if status in (400, 405) and deed == "push":
        return InvalidArgument(f"registry {host} refuses the push: {said or response.reason or status}")
    return Unavailable(f"registry {host} answered {status}: {said or response.reason or 'no reason'}")
