"""Digests: the names of content, "sha256:" and 64 lower-case hex digits; other algorithms are refused.

A digest becomes part of a path in the content store, so nothing enters that store unless it went through `check`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from shoal.errors import InvalidArgument

_PATTERN = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


def is_digest(text: str) -> bool:
    """True for a complete digest."""
    return _PATTERN.fullmatch(text) is not None


def check(text: str) -> str:
    """`text` itself. Raises InvalidArgument when it is no digest."""
    if not is_digest(text):
        raise InvalidArgument(f"invalid digest {text[:200]!r}", hint="a digest is sha256: and 64 lower-case hex digits")
    return text


def of(data: bytes) -> str:
    """The sha256 digest of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def chain_id(below: str, diff_id: str) -> str:
    """Of one layer on top of the chain `below`."""
    return of(f"{below} {diff_id}".encode())


def chain_ids(diff_ids: Iterable[str]) -> tuple[str, ...]:
    """The chain id of each layer on top of those below it, bottom first.

    https://github.com/opencontainers/image-spec/blob/main/config.md#layer-chainid
    """
    chain: list[str] = []
    for diff_id in diff_ids:
        chain.append(chain_id(chain[-1], diff_id) if chain else diff_id)
    return tuple(chain)
