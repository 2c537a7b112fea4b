"""Search: repositories of a registry by a word. Docker Hub and its like have an interface for it (`/v1/search`); a
registry that has only a catalog is looked through by name; what has neither is refused clearly."""

from __future__ import annotations

import msgspec
from yarl import URL

from agent.registry import answer
from agent.registry.auth import Credentials
from agent.registry.connection import Connection, next_page
from agent.registry.rules import Rules
from shoal.errors import InvalidArgument, Unsupported
from shoal.reference import DEFAULT_DOMAIN

# Docker Hub searches at another address than it serves images from.
_HUB = "index.docker.io"
_MOST_PAGES = 100
_MOST = 100


class Hit(msgspec.Struct, frozen=True, rename={"stars": "star_count", "official": "is_official"}):
    """One repository. What only Docker Hub knows is empty elsewhere."""

    name: str
    description: str | None = ""
    stars: int = 0
    official: bool = False


class _Hits(msgspec.Struct):
    results: list[Hit] = []


class _Catalog(msgspec.Struct):
    repositories: list[str] | None = None


async def search(
    registry: str, term: str, *, limit: int, rules: Rules, credentials: Credentials | None = None
) -> list[Hit]:
    """Best first, at most `limit`. Raises Unsupported for a registry that cannot be searched."""
    if not 0 < limit <= _MOST:
        raise InvalidArgument(f"limit {limit} is outside the range of [1, {_MOST}]")
    host = _HUB if registry == DEFAULT_DOMAIN else registry
    async with Connection(host, rules=rules, credentials=credentials) as connection:
        found = await _ask(connection, term, limit)
        if found is None:
            connection.scopes.append("registry:catalog:*")
            found = await _look_through(connection, term, limit)
    return found[:limit]


async def _ask(connection: Connection, term: str, limit: int) -> list[Hit] | None:
    """None where there is no such interface."""
    url = ((await connection.base()) / "v1/search").with_query(q=term, n=str(limit))
    async with connection.ask("GET", url, headers={"Accept": "application/json"}) as response:
        data = await answer.read(response, "the registry's answer")
        if response.status != 200 or "json" not in response.headers.get("Content-Type", ""):
            return None
    try:
        return msgspec.json.decode(data, type=_Hits).results
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"what registry {connection.host} found cannot be read: {error}") from error


async def _look_through(connection: Connection, term: str, limit: int) -> list[Hit]:
    found: list[Hit] = []
    where: URL | None = ((await connection.base()) / "v2/_catalog").with_query(n="1000")
    for _ in range(_MOST_PAGES):
        if where is None or len(found) >= limit:
            break
        async with connection.ask("GET", where) as response:
            data = await answer.read(response, "the catalog", 4 << 20)
            if response.status != 200:
                raise Unsupported(
                    f"registry {connection.host} cannot be searched: it answered {response.status} "
                    f"({answer.told(data) or response.reason or 'no reason'})",
                    hint="it has neither Docker Hub's search nor a catalog for you",
                )
            where = next_page(response)
        try:
            names = msgspec.json.decode(data, type=_Catalog).repositories or []
        except msgspec.MsgspecError as error:
            raise InvalidArgument(f"the catalog of registry {connection.host} cannot be read: {error}") from error
        found += [Hit(f"{connection.host}/{name}") for name in names if term.lower() in name.lower()]
    return found
