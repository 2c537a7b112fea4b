"""References: how users name an image, `[host[:port]/]path[:tag][@digest]`, by docker's grammar.

The canonical form carries the host (`docker.io/library/busybox:latest`); the familiar one leaves out what docker
implies (`busybox:latest`). With both a tag and a digest, the digest decides which image is meant.
"""

from __future__ import annotations

import functools
import re

import msgspec

from shoal import digest as digests
from shoal.errors import InvalidArgument

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_OFFICIAL = "library/"
_MAX_NAME = 255

_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::(?P<port>[0-9]+))?"
_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?P<domain>{_DOMAIN})/(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::(?P<tag>\w[\w.-]{0,127}))?(?:@(?P<digest>[^@]+))?",
    re.ASCII,
)
_IDENTIFIER = re.compile(r"[a-f0-9]{64}")


class Reference(msgspec.Struct, frozen=True):
    """One reference, taken apart. `tag` and `digest` are empty when not given."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Host and path: `docker.io/library/busybox`."""
        return f"{self.domain}/{self.path}"

    @property
    def canonical(self) -> str:
        """Everything, in one form for one meaning."""
        return self.name + self._suffix

    @property
    def familiar_name(self) -> str:
        """The repository as people write it: `busybox`."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        rest = self.path.removeprefix(_OFFICIAL)
        return self.path if "/" in rest else rest

    @property
    def familiar(self) -> str:
        """The whole as people write it: `busybox:latest`."""
        return self.familiar_name + self._suffix

    def with_default_tag(self) -> Reference:
        """Itself, or tagged `latest` where it has neither tag nor digest."""
        if self.tag or self.digest:
            return self
        return msgspec.structs.replace(self, tag=DEFAULT_TAG)

    def at(self, digest: str) -> Reference:
        """This repository's image of that digest; the tag falls away."""
        return msgspec.structs.replace(self, tag="", digest=digest)

    @property
    def key(self) -> str:
        """What the catalog remembers it by: by digest where there is one, else by tag."""
        return (self.at(self.digest) if self.digest else self.with_default_tag()).canonical

    @property
    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


@functools.lru_cache(1024)
def parse(text: str) -> Reference:
    """The reference that `text` writes in familiar or canonical form; no tag is made up.

    Raises InvalidArgument in docker's words.
    """
    if _IDENTIFIER.fullmatch(text):
        raise InvalidArgument(
            f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings",
            hint="it looks like an image id; give a name",
        )
    domain, rest = _split_domain(text)
    path = rest.partition("@")[0].partition(":")[0]
    if path != path.lower():
        raise InvalidArgument(f"invalid reference format: repository name ({path}) must be lowercase")
    found = _REFERENCE.fullmatch(f"{domain}/{rest}")
    if found is None or not _port_fits(found["port"]):
        hint = "write [HOST[:PORT]/]NAME[:TAG|@DIGEST]"
        raise InvalidArgument(f"invalid reference format: {text[:300]!r}", hint=hint)
    if found["digest"] and not digests.is_digest(found["digest"]):
        raise InvalidArgument(f"invalid reference format: {found['digest'][:200]!r} is not a digest")
    reference = Reference(found["domain"], found["path"], found["tag"] or "", found["digest"] or "")
    if len(reference.name) > _MAX_NAME:
        raise InvalidArgument("invalid reference format: repository name must not be more than 255 characters")
    return reference


def _split_domain(text: str) -> tuple[str, str]:
    """A first component is a host when it has a dot or a port, or is `localhost`, or has capitals."""
    first, slash, rest = text.partition("/")
    is_host = bool(slash) and (any(c in first for c in ".:") or first == "localhost" or first != first.lower())
    if not is_host:
        first, rest = DEFAULT_DOMAIN, text
    if first == "index.docker.io":
        first = DEFAULT_DOMAIN
    if first == DEFAULT_DOMAIN and "/" not in rest.partition("@")[0]:
        rest = _OFFICIAL + rest
    return first, rest


def _port_fits(port: str | None) -> bool:
    return port is None or (len(port) <= 5 and 0 < int(port) <= 65535)
