"""One repository of one registry: manifests, blobs and tags of the OCI distribution protocol, for pull and push.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md. How a blob is sent is `upload`'s; who we are and
where requests may go is `connection`'s. What a registry sends is believed only as far as its digest goes.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from types import TracebackType

import msgspec
from yarl import URL

from agent.registry import answer, media
from agent.registry.auth import Credentials
from agent.registry.connection import Answer, Connection, next_page
from agent.registry.rules import Rules
from shoal import digest as digests
from shoal.clock import Clock
from shoal.errors import InvalidArgument, NotFound, ShoalError, Unavailable
from shoal.reference import Reference

MAX_MANIFEST_BYTES = 4 << 20
_MOST_TAGS = 100_000
_MANIFESTS = {"Accept": ", ".join(media.ACCEPTED)}


class _Tags(msgspec.Struct):
    tags: list[str] | None = None


class Repository:
    """As a BlobSource, and with its manifests. An asynchronous context manager. `push`: to write there as well;
    `mirror`: the same repository at another place, which gets no credentials."""

    def __init__(
        self,
        reference: Reference,
        *,
        rules: Rules,
        credentials: Credentials | None = None,
        push: bool = False,
        mirror: URL | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.reference = reference
        self.path = f"v2/{reference.path}"
        self.connection = Connection(
            reference.domain,
            rules=rules,
            credentials=None if mirror is not None else credentials,
            mirror=mirror,
            clock=clock,
        )
        self.connection.scopes.append(f"repository:{reference.path}:{'pull,push' if push else 'pull'}")
        self._deed = "push" if push else "pull"

    async def __aenter__(self) -> Repository:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.connection.__aexit__(kind, error, trace)

    async def manifest(self, tag_or_digest: str) -> tuple[bytes, str]:
        """A manifest or index as it is, and its media type. Raises NotFound in docker's words."""
        where = f"{self.path}/manifests/{tag_or_digest}"
        async with self.connection.ask("GET", where, headers=_MANIFESTS) as response:
            await self.expect(response, 200)
            data = await answer.read(response, "the manifest", MAX_MANIFEST_BYTES)
            said = response.headers.get("Docker-Content-Digest", "")
            kind = response.headers.get("Content-Type", "")
        wanted = tag_or_digest if digests.is_digest(tag_or_digest) else said
        if digests.is_digest(wanted) and digests.of(data) != wanted:
            raise InvalidArgument(f"the manifest that registry {self.connection.host} sent is not {wanted}")
        return data, kind

    async def digest(self, tag: str) -> str:
        """What a tag stands for just now. Raises NotFound in docker's words."""
        async with self.connection.ask("HEAD", f"{self.path}/manifests/{tag}", headers=_MANIFESTS) as response:
            said = response.headers.get("Docker-Content-Digest", "")
            if response.status == 200 and digests.is_digest(said):
                return said
        data, _ = await self.manifest(tag)
        return digests.of(data)

    async def tags(self) -> list[str]:
        """All tags, as the registry orders them."""
        found: list[str] = []
        where: str | URL | None = f"{self.path}/tags/list"
        while where is not None:
            async with self.connection.ask("GET", where) as response:
                if response.status == 404:
                    said = answer.told(await answer.read(response, "the registry's answer")) or "name unknown"
                    raise NotFound(f"repository {self.reference.familiar_name} not found: {said}")
                await self.expect(response, 200)
                data = await answer.read(response, "the list of tags", MAX_MANIFEST_BYTES)
                where = next_page(response)
            try:
                found += msgspec.json.decode(data, type=_Tags).tags or []
            except msgspec.MsgspecError as error:
                raise InvalidArgument(f"the list of tags cannot be read: {error}") from error
            if len(found) > _MOST_TAGS:
                raise InvalidArgument(f"repository {self.reference.familiar_name} has more than {_MOST_TAGS} tags")
        return found

    async def open(self, digest: str, offset: int) -> tuple[int, str, AsyncGenerator[bytes, None]]:
        """A blob from `offset` on (BlobSource). A manifest, which an index speaks of, is one too, at another place."""
        async with AsyncExitStack() as stack:
            headers = {"Range": f"bytes={offset}-"} if offset else {}
            asking = self.connection.ask("GET", f"{self.path}/blobs/{digests.check(digest)}", headers=headers)
            response = await stack.enter_async_context(asking)
            if response.status == 404 and not offset:
                response.release()
                asking = self.connection.ask("GET", f"{self.path}/manifests/{digest}", headers=_MANIFESTS)
                response = await stack.enter_async_context(asking)
            if response.status == 404:
                raise NotFound(f"registry {self.connection.host} has no such content: {digest}")
            await self.expect(response, 200, 206)
            # A server may ignore the range and begin at the beginning.
            skip = offset if response.status == 200 else 0
            if response.status == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
                raise Unavailable(f"registry {self.connection.host} sent another part of {digest} than asked for")
            size = (response.content_length or 0) + offset - skip
            return size, "", answer.pieces(response, skip, stack.pop_all())

    async def has(self, digest: str) -> bool:
        """Whether the repository has a blob."""
        async with self.connection.ask("HEAD", f"{self.path}/blobs/{digests.check(digest)}") as response:
            if response.status == 404:
                return False
            # One that says where the blob lies has it; what lies there may be for GET alone.
            if response.url.origin() == (await self.connection.base()).origin():
                await self.expect(response, 200)
            return True

    async def mount(self, digest: str, source: str) -> bool:
        """Have a blob of the repository `source` of the same registry here, without sending it; false where the
        registry does not do that."""
        scope = f"repository:{source}:pull"
        if scope not in self.connection.scopes:
            self.connection.scopes.append(scope)
        path = URL(f"{self.path}/blobs/uploads/").with_query(mount=digest, **{"from": source})
        async with self.connection.ask("POST", (await self.connection.base()).join(URL("/")).join(path)) as response:
            mounted = response.status == 201
            location = response.headers.get("Location", "")
            if response.status == 202 and location:  # it has begun an upload instead
                begun = response.url.join(URL(location))
            else:
                return mounted
        async with self.connection.ask("DELETE", begun):
            return False

    async def put_manifest(self, tag: str, data: bytes, media_type: str) -> str:
        """Give an image to the registry, all of whose blobs are there; its digest."""
        where = f"{self.path}/manifests/{tag}"
        async with self.connection.ask("PUT", where, headers={"Content-Type": media_type}, body=data) as response:
            await self.expect(response, 201)
            said = response.headers.get("Docker-Content-Digest", "")
        digest = digests.of(data)
        if digests.is_digest(said) and said != digest:
            raise InvalidArgument(f"registry {self.connection.host} made {said} of the manifest {digest}")
        return digest

    async def expect(self, response: Answer, *statuses: int) -> None:
        """Raises ShoalError with the registry's words for any other answer."""
        if response.status not in statuses:
            raise await self.refusal(response)

    async def refusal(self, response: Answer) -> ShoalError:
        return await answer.refusal(response, self.connection.host, self.reference, self._deed)
