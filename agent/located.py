"""Located: what a manager says of an image that this node lacks. `session` asks, `obtain` goes by it."""

from __future__ import annotations

import msgspec

from agent.registry.auth import Credentials


class Source(msgspec.Struct, frozen=True):
    """A node that holds an image. `address` is "HOST:PORT" of its agent."""

    node_id: str
    address: str
    manifest_digest: str


class Located(msgspec.Struct, frozen=True):
    """Where an image is. Without `sources`: `bring` it from the registry, with `credentials` where there are some, or
    wait, since it is `coming` to another node. `doubt`: why somebody may have it nevertheless."""

    sources: tuple[Source, ...] = ()
    bring: bool = False
    coming: bool = False
    credentials: Credentials | None = None
    doubt: str = ""
