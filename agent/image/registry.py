"""The registry client: the pull side of the OCI distribution protocol, for one repository.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md. TLS unless the registry is on this host
(127.0.0.0/8, ::1, localhost) or listed as insecure; a redirect never takes credentials to another host, and never
leads from TLS to plain HTTP. A transfer that breaks is resumed by the caller (`pull`) with an offset.
"""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType

import aiohttp
import msgspec
from yarl import URL

from agent.image import auth, manifest
from agent.image.auth import Credentials
from shoal import __version__
from shoal import digest as digests
from shoal.errors import Exhausted, InvalidArgument, NotFound, PermissionDenied, ShoalError, Unavailable
from shoal.reference import DEFAULT_DOMAIN, Reference

_DOCKER_HUB = "registry-1.docker.io"
_CONNECT_S = 15.0
# Between two pieces of an answer; a transfer as a whole may take what it takes.
_IDLE_S = 60.0
_MAX_REDIRECTS = 10
_MAX_ANSWER_BYTES = 1 << 20
_CHUNK = 1 << 18
_REDIRECTS = (301, 302, 303, 307, 308)


class _Error(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Errors(msgspec.Struct):
    errors: list[_Error] = []


class Repository:
    """One repository of one registry, as a BlobSource and with its manifests. An asynchronous context manager."""

    def __init__(
        self, reference: Reference, *, credentials: Credentials | None = None, insecure: Collection[str] = ()
    ) -> None:
        self._reference = reference
        self._host = _DOCKER_HUB if reference.domain == DEFAULT_DOMAIN else reference.domain
        self._credentials = credentials
        self._insecure = frozenset(insecure)
        self._authorization = ""
        self._base: URL | None = None
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_IDLE_S)
        self._session = aiohttp.ClientSession(
            timeout=timeout,
            headers={"User-Agent": f"shoal/{__version__}"},
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            # A proxy of the environment counts, except for this host itself.
            trust_env=not _is_local(self._host),
        )

    async def __aenter__(self) -> Repository:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def manifest(self, tag_or_digest: str) -> tuple[bytes, str]:
        """A manifest or index as it is, and its media type. Raises NotFound in docker's words."""
        headers = {"Accept": ", ".join(manifest.ACCEPTED)}
        async with self._get(f"manifests/{tag_or_digest}", headers) as response:
            if response.status != 200:
                raise await self._refusal(response)
            data = await _read(response, manifest.MAX_DOCUMENT_BYTES, "the manifest")
            said = response.headers.get("Docker-Content-Digest", "")
            kind = response.headers.get("Content-Type", "")
        wanted = tag_or_digest if digests.is_digest(tag_or_digest) else said
        if digests.is_digest(wanted) and digests.of(data) != wanted:
            raise InvalidArgument(f"the manifest that registry {self._host} sent is not {wanted}")
        return data, kind

    async def open(self, digest: str, offset: int) -> tuple[int, str, AsyncGenerator[bytes, None]]:
        """A blob from `offset` on (BlobSource)."""
        async with AsyncExitStack() as stack:
            headers = {"Range": f"bytes={offset}-"} if offset else {}
            response = await stack.enter_async_context(self._get(f"blobs/{digests.check(digest)}", headers))
            if response.status not in (200, 206):
                raise await self._refusal(response)
            # A server may ignore the range and begin at the beginning.
            skip = offset if response.status == 200 else 0
            if response.status == 206 and not response.headers.get("Content-Range", "").startswith(f"bytes {offset}-"):
                raise Unavailable(f"registry {self._host} sent another part of {digest} than asked for")
            size = (response.content_length or 0) + offset - skip
            return size, "", _pieces(response, skip, stack.pop_all())

    @asynccontextmanager
    async def _get(self, path: str, headers: dict[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """GET below the repository, after proving who we are if asked to. Network failures become Unavailable."""
        try:
            base = await self._find_base()
            url = base / f"v2/{self._reference.path}/{path}"
            response = await self._follow(url, headers)
            if response.status == 401 and await self._authorize(response):
                response.release()
                response = await self._follow(url, headers)
            async with response:
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error

    async def _follow(self, url: URL, headers: dict[str, str]) -> aiohttp.ClientResponse:
        origin = url.origin()
        for _ in range(_MAX_REDIRECTS):
            sent = dict(headers)
            if self._authorization and url.origin() == origin:
                sent["Authorization"] = self._authorization
            response = await self._session.get(url, headers=sent, allow_redirects=False, ssl=self._tls(url))
            if response.status not in _REDIRECTS:
                return response
            location = response.headers.get("Location", "")
            response.release()
            following = url.join(URL(location))
            if following.scheme != "https" and (url.scheme == "https" or not self._may_be_plain(following)):
                raise Unavailable(
                    f"registry {self._host} redirects to {following.origin()} without TLS; this is refused"
                )
            url = following
        raise Unavailable(f"registry {self._host} redirects more than {_MAX_REDIRECTS} times")

    async def _authorize(self, response: aiohttp.ClientResponse) -> bool:
        """Answer a 401; true when trying again makes sense."""
        if response.url.origin() != (await self._find_base()).origin():
            return False
        for challenge in auth.challenges(response.headers.getall("WWW-Authenticate", [])):
            if challenge.scheme == "bearer":
                self._authorization = await self._token(challenge)
                return True
            if challenge.scheme == "basic" and self._credentials is not None:
                self._authorization = self._credentials.basic
                return True
            if challenge.scheme == "basic":
                raise PermissionDenied(
                    f"registry {self._host}: no basic auth credentials", hint=f"run `shoal login {self._host}` first"
                )
        return False

    async def _token(self, challenge: auth.Challenge) -> str:
        scope = f"repository:{self._reference.path}:pull"
        wanted = auth.token_request(challenge, registry=self._host, scope=scope, credentials=self._credentials)
        if wanted.url.scheme != "https" and not self._may_be_plain(wanted.url):
            raise PermissionDenied(f"registry {self._host} asks for a token from {wanted.url.host} without TLS")
        headers = {"Authorization": wanted.authorization} if wanted.authorization else {}
        async with self._session.request(
            "POST" if wanted.form else "GET",
            wanted.url,
            data=wanted.form or None,
            headers=headers,
            allow_redirects=False,
            ssl=self._tls(wanted.url),
        ) as response:
            answer = await _read(response, _MAX_ANSWER_BYTES, "the token service's answer")
            if response.status in (400, 401, 403):
                raise PermissionDenied(
                    f"pull access denied for {self._reference.familiar_name}: the token service "
                    f"{wanted.url.host} refused ({response.status}): {_told(answer)}",
                    hint="check the user name and password",
                )
            if response.status != 200:
                raise Unavailable(f"the token service {wanted.url.host} answered {response.status}")
        return auth.token_of(answer, realm=wanted.url.host or "")

    async def _find_base(self) -> URL:
        """The registry's address; where plain HTTP is allowed, TLS is tried first."""
        if self._base is None:
            secure = URL(f"https://{self._host}")
            self._base = secure
            if self._may_be_plain(secure) and not await self._speaks_tls(secure):
                self._base = URL(f"http://{self._host}")
        return self._base

    async def _speaks_tls(self, url: URL) -> bool:
        try:
            async with self._session.get(url / "v2/", allow_redirects=False, ssl=self._tls(url)):
                return True
        except aiohttp.ClientConnectorSSLError:
            return False
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ssl.SSLError) as error:
            if isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error, aiohttp.ClientSSLError):
                self._base = None
                raise
            return False

    def _may_be_plain(self, url: URL) -> bool:
        host = url.host or ""
        return _is_local(url.authority) or host in self._insecure or url.authority in self._insecure

    def _tls(self, url: URL) -> bool:
        """True: certificates are verified; where even plain HTTP were allowed, any certificate will do."""
        return not self._may_be_plain(url)

    def _unreachable(self, error: Exception) -> ShoalError:
        host = self._host
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            return PermissionDenied(
                f"registry {host} cannot be trusted: {error.certificate_error}",
                hint="install its CA on this host, or list it as an insecure registry",
            )
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return Unavailable(f"cannot reach registry {host}: its name cannot be resolved ({error.strerror})")
        if isinstance(error, aiohttp.ClientConnectorError):
            number = error.os_error.errno
            reason = os.strerror(number).lower() if number else str(error.os_error)
            return Unavailable(f"cannot reach registry {host}: {reason}")
        if isinstance(error, TimeoutError):
            return Unavailable(f"registry {host} does not answer")
        return Unavailable(f"the connection to registry {host} broke: {error or type(error).__name__}")

    async def _refusal(self, response: aiohttp.ClientResponse) -> ShoalError:
        """The error for an answer that is not what was asked for."""
        said = _told(await _read(response, _MAX_ANSWER_BYTES, "the registry's answer"))
        reference, status = self._reference, response.status
        if status == 404 and "/manifests/" in response.url.path:
            return NotFound(f"manifest for {reference.with_default_tag().familiar} not found: manifest unknown")
        if status == 404:
            return NotFound(f"registry {self._host} has no such content: {response.url.path.rpartition('/')[2]}")
        if status in (401, 403):
            return PermissionDenied(
                f"pull access denied for {reference.familiar_name}, repository does not exist or may require login: "
                f"{said or 'denied'}",
                hint=f"run `shoal login {reference.domain}` first",
            )
        if status == 429:
            return Exhausted(f"registry {self._host} refuses for now: too many requests: {said}", hint="try later")
        return Unavailable(f"registry {self._host} answered {status}: {said or response.reason or 'no reason'}")


def _is_local(authority: str) -> bool:
    """True for hosts by which a machine reaches itself."""
    host = URL(f"//{authority}").host or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _pieces(response: aiohttp.ClientResponse, skip: int, stack: AsyncExitStack) -> AsyncGenerator[bytes, None]:
    """The body without its first `skip` bytes; `stack` holds the response."""
    async with stack:
        async for chunk in response.content.iter_chunked(_CHUNK):
            rest = chunk[skip:]
            skip = max(0, skip - len(chunk))
            if rest:
                yield rest


async def _read(response: aiohttp.ClientResponse, limit: int, what: str) -> bytes:
    pieces, got = [], 0
    async for piece in response.content.iter_chunked(_CHUNK):
        got += len(piece)
        if got > limit:
            raise InvalidArgument(f"{what} has more than {limit} bytes")
        pieces.append(piece)
    return b"".join(pieces)


def _told(body: bytes) -> str:
    """The registry's own words, short and printable."""
    try:
        found = msgspec.json.decode(body, type=_Errors).errors
    except msgspec.MsgspecError:
        return ""
    text = "; ".join(each.message or each.code for each in found[:3])
    return "".join(c if c.isprintable() else "?" for c in text)[:300]
