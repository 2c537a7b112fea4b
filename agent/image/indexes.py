"""Indexes: several images under one name at a registry (`manifest create`). The client keeps what it is putting
together; here is what that asks of registries: to look at an image, and to publish the index."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from agent.image import document as documents
from agent.image import manifest as manifests
from agent.image.download import read_document
from agent.image.manifest import Index
from agent.image.platform import Platform
from agent.registry.auth import Credentials
from agent.registry.places import places
from agent.registry.repository import Repository
from agent.registry.rules import Rules
from shoal import digest as digests
from shoal.clock import Clock
from shoal.errors import InvalidArgument, Unsupported
from shoal.reference import Reference


class Looked(msgspec.Struct, frozen=True):
    """A manifest or index as a registry has it; of an image, for which platform."""

    reference: Reference
    data: bytes
    media_type: str
    digest: str
    platform: Platform | None


class Indexes:
    def __init__(self, rules: Rules, *, clock: Clock) -> None:
        self._rules = rules
        self._clock = clock

    async def look(self, reference: Reference, credentials: Credentials | None) -> Looked:
        """What a name stands for at its registry. Raises NotFound in docker's words."""
        wanted = reference.with_default_tag()
        async with places(wanted, rules=self._rules, credentials=credentials, clock=self._clock) as found:
            data, kind = await found.manifest(wanted.digest or wanted.tag)
            parsed = manifests.parse(data, media_type=kind)
            platform = None
            if not isinstance(parsed, Index):
                config, _ = await read_document(found.all, parsed.config.digest)
                platform = documents.parse_document(config).platform
        kind = manifests.media_type_of(data) or kind.partition(";")[0]
        return Looked(wanted, data, kind, digests.of(data), platform)

    async def publish(
        self, reference: Reference, data: bytes, members: Sequence[Reference], credentials: Credentials | None
    ) -> str:
        """Give an index to the registry, and have the images that it speaks of, `members` by digest, in its repository
        first; its digest. Raises InvalidArgument for one of another registry."""
        wanted = reference.with_default_tag()
        parsed = manifests.parse(data)
        if not isinstance(parsed, Index):
            raise InvalidArgument("only an index can be published so", hint="push an image with `push`")
        for each in members:
            if each.domain != wanted.domain:
                raise InvalidArgument(f"{each.familiar} is at another registry than {wanted.familiar}")
        async with self._repository(wanted, credentials, push=True) as target:
            for each in members:
                if each.path != wanted.path:
                    await self._bring(each, target, credentials)
            return await target.put_manifest(wanted.tag, data, manifests.media_type_of(data) or manifests.OCI_INDEX)

    async def _bring(self, member: Reference, target: Repository, credentials: Credentials | None) -> None:
        """An image from another repository of the same registry, without its bytes passing through here."""
        async with self._repository(member, credentials, push=False) as source:
            data, kind = await source.manifest(member.digest)
        found = manifests.parse(data, media_type=kind)
        if isinstance(found, Index):
            raise InvalidArgument(f"{member.familiar} is an index itself")
        for blob in (found.config, *found.layers):
            if not await target.has(blob.digest) and not await target.mount(blob.digest, member.path):
                raise Unsupported(
                    f"the registry does not give {member.familiar_name} to another repository",
                    hint=f"push the image to {target.reference.familiar_name} first",
                )
        await target.put_manifest(member.digest, data, kind)

    def _repository(self, reference: Reference, credentials: Credentials | None, *, push: bool) -> Repository:
        return Repository(reference, rules=self._rules, credentials=credentials, push=push, clock=self._clock)
