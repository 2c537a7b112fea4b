"""Connection: to one registry, on behalf of one user. TLS unless the rules say otherwise; a redirect never takes
credentials to another host, and never leads from TLS to plain HTTP.

Whoever is asked for proof proves it and asks again; whoever is asked to wait a little waits. A transfer that breaks is
resumed by the caller, which alone knows how far it came.
"""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import functools
import os
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import TracebackType

import aiohttp
from yarl import URL

from agent.registry import answer, auth
from agent.registry.auth import Credentials, Token
from agent.registry.rules import Rules, is_local
from shoal import __version__
from shoal.clock import Clock, SystemClock
from shoal.errors import PermissionDenied, ShoalError, Unavailable
from shoal.reference import DEFAULT_DOMAIN

_DOCKER_HUB = "registry-1.docker.io"
_CONNECT_S = 15.0
_MAX_REDIRECTS = 10
_REDIRECTS = (301, 302, 303, 307, 308)
# A registry that asks for more patience than this gets its words shown instead.
_LONGEST_WAIT_S = 60.0
_PATIENCE = 5
# What is sent of a body between two looks at whether it still goes on.
_PIECE = 1 << 16
Answer = aiohttp.ClientResponse
Body = bytes | memoryview | None


def _nobody(_: int) -> None:
    """For bodies whose progress nobody watches."""


class Connection:
    """An asynchronous context manager. `registry` is a reference's domain; `mirror`: another place with the same."""

    def __init__(
        self,
        registry: str,
        *,
        rules: Rules,
        credentials: Credentials | None = None,
        mirror: URL | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.host = mirror.authority if mirror is not None else address_of(registry)
        self.scopes: list[str] = []
        self._rules = rules
        self._credentials = credentials
        self._clock = clock or SystemClock()
        self._base = mirror
        self._trust: dict[str, ssl.SSLContext | bool] = {}
        self._authorization = ""
        self._authorizing = asyncio.Lock()
        self._finding = asyncio.Lock()
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=rules.idle_s)
        self._session = aiohttp.ClientSession(
            timeout=timeout,
            headers={"User-Agent": f"shoal/{__version__}"},
            auto_decompress=False,
            read_bufsize=1 << 20,
            cookie_jar=aiohttp.DummyCookieJar(),
            # A proxy of the environment counts, except for this host itself.
            trust_env=not is_local(self.host),
        )

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def base(self) -> URL:
        """The registry's address; where plain HTTP is allowed, TLS is tried first."""
        async with self._finding:
            if self._base is None:
                secure = URL(f"https://{self.host}")
                plain = self._rules.may_be_plain(self.host) and not await self._speaks_tls(secure)
                self._base = URL(f"http://{self.host}") if plain else secure
        return self._base

    @asynccontextmanager
    async def ask(
        self,
        method: str,
        where: str | URL,
        *,
        headers: dict[str, str] | None = None,
        body: Body = None,
        sent: Callable[[int], None] = _nobody,
    ) -> AsyncIterator[Answer]:
        """Send a request to a path of the registry, or to a URL that it gave; `sent` hears how much of `body` is out.

        Any answer is the caller's to judge. Network failures become Unavailable.
        """
        try:
            url = where if isinstance(where, URL) else (await self.base()) / where
            response = await self._persist(method, url, headers or {}, body, sent)
            async with response:
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error

    async def prove(self) -> str:
        """Show the credentials, as `login` does: the identity token that stands for them from now on, "" where there is
        none. Raises PermissionDenied where the registry does not take them."""
        lasting = ""
        try:
            url = (await self.base()) / "v2/"
            response = await self._follow("GET", url, {}, None, _nobody)
            if response.status == 401:
                lasting = (await self._authorize(response, lasting=True)).refresh
                response.release()
                response = await self._follow("GET", url, {}, None, _nobody)
            async with response:
                if response.status == 401:
                    raise PermissionDenied(f"login attempt to {url} failed with status: 401 Unauthorized")
                if response.status not in (200, 404):
                    raise await answer.refusal(response, self.host, None, "pull")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error) from error
        return lasting

    async def _persist(
        self, method: str, url: URL, headers: dict[str, str], body: Body, sent: Callable[[int], None]
    ) -> Answer:
        """One answer: after a proof where it is asked for, and after waiting where that is asked for."""
        proved = False
        for attempt in range(_PATIENCE):
            shown = self._authorization
            response = await self._follow(method, url, headers, body, sent)
            if response.status == 401 and not proved and await self._convince(response, shown):
                proved = True
                response.release()
                continue
            wait_s = _wait_s(response, self._clock.now_ns()) if response.status in (429, 503) else None
            if wait_s is None or attempt == _PATIENCE - 1:
                return response
            response.release()
            await self._clock.sleep(wait_s)
        return await self._follow(method, url, headers, body, sent)

    async def _follow(
        self, method: str, url: URL, headers: dict[str, str], body: Body, sent: Callable[[int], None]
    ) -> Answer:
        origin = (await self.base()).origin()
        for _ in range(_MAX_REDIRECTS):
            self._check_plain(url)
            shown = dict(headers)
            if self._authorization and url.origin() == origin:
                shown["Authorization"] = self._authorization
            response = await self._send(method, url, shown, body, sent)
            if response.status not in _REDIRECTS or "Location" not in response.headers:
                return response
            following = url.join(URL(response.headers["Location"]))
            response.release()
            if following.scheme != "https" and url.scheme == "https":
                raise Unavailable(f"registry {self.host} redirects from TLS to {following.origin()}; this is refused")
            url = following
        raise Unavailable(f"registry {self.host} redirects more than {_MAX_REDIRECTS} times")

    async def _send(
        self, method: str, url: URL, headers: dict[str, str], body: Body, sent: Callable[[int], None]
    ) -> Answer:
        request = functools.partial(
            self._session.request, method, url, headers=headers, allow_redirects=False, ssl=self._tls(url)
        )
        if body is None:
            return await request()
        headers["Content-Length"] = str(len(body))
        async with asyncio.timeout(self._rules.idle_s) as deadline:

            async def flow() -> AsyncIterator[bytes]:
                for at in range(0, len(body), _PIECE):
                    yield bytes(body[at : at + _PIECE])
                    deadline.reschedule(asyncio.get_running_loop().time() + self._rules.idle_s)
                    sent(min(at + _PIECE, len(body)))

            return await request(data=flow())

    async def _convince(self, response: Answer, shown: str) -> bool:
        """Answer a 401 to what was sent with the authorization `shown`; true when trying again makes sense."""
        if response.url.origin() != (await self.base()).origin():
            return False
        async with self._authorizing:
            if self._authorization != shown:  # somebody else has just done it
                return True
            await self._authorize(response)
            return self._authorization != shown

    async def _authorize(self, response: Answer, *, lasting: bool = False) -> Token:
        """Answer the challenges of a 401; an empty Token where there is nothing to answer. Raises PermissionDenied."""
        for challenge in auth.challenges(response.headers.getall("WWW-Authenticate", [])):
            if challenge.scheme == "bearer":
                token = await self._token(challenge, lasting=lasting)
                self._authorization = token.authorization
                return token
            if challenge.scheme == "basic" and self._credentials is not None:
                self._authorization = self._credentials.basic
                return Token(self._authorization)
            if challenge.scheme == "basic":
                raise PermissionDenied(
                    f"registry {self.host}: no basic auth credentials", hint=f"run `shoal login {self.host}` first"
                )
        return Token("")

    async def _token(self, challenge: auth.Challenge, *, lasting: bool) -> Token:
        wanted = auth.token_request(
            challenge, registry=self.host, scopes=self.scopes, credentials=self._credentials, lasting=lasting
        )
        service = wanted.url.authority
        if wanted.url.scheme != "https" and not self._rules.may_be_plain(service):
            raise PermissionDenied(f"registry {self.host} asks for a token from {service} without TLS")
        async with self._session.request(
            "POST" if wanted.form else "GET",
            wanted.url,
            data=wanted.form or None,
            headers={"Authorization": wanted.authorization} if wanted.authorization else {},
            allow_redirects=False,
            ssl=self._tls(wanted.url),
        ) as response:
            said = await answer.read(response, "the token service's answer")
            if response.status in (400, 401, 403):
                raise PermissionDenied(
                    f"registry {self.host}: access denied: the token service {service} refused "
                    f"({response.status}): {answer.told(said) or 'unauthorized'}",
                    hint="check the user name and password",
                )
            if response.status != 200:
                raise Unavailable(f"the token service {service} answered {response.status}")
        return auth.token_of(said, realm=service)

    async def _speaks_tls(self, url: URL) -> bool:
        try:
            async with self._session.get(url / "v2/", allow_redirects=False, ssl=self._tls(url)):
                return True
        except aiohttp.ClientConnectorCertificateError:
            raise
        except aiohttp.ClientConnectorSSLError:
            return False
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ssl.SSLError) as error:
            if isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error, aiohttp.ClientSSLError):
                raise
            return False

    def _check_plain(self, url: URL) -> None:
        if url.scheme != "https" and not self._rules.may_be_plain(url.authority):
            raise Unavailable(f"registry {self.host} leads to {url.origin()} without TLS; this is refused")

    def _tls(self, url: URL) -> ssl.SSLContext | bool:
        if url.authority not in self._trust:
            self._trust[url.authority] = self._rules.tls(url.authority)
        return self._trust[url.authority]

    def _unreachable(self, error: Exception) -> ShoalError:
        host = self.host
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            folder = self._rules.certificates / host
            return PermissionDenied(
                f"registry {host} cannot be trusted: {error.certificate_error}",
                hint=f"put its CA into {folder}/ca.crt, or start the agent with --insecure-registry {host}",
            )
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return Unavailable(f"cannot reach {self._place(error)}: its name cannot be resolved ({error.strerror})")
        if isinstance(error, aiohttp.ClientConnectorSSLError) and isinstance(error.os_error, ssl.SSLError):
            # Its number is one of OpenSSL's, not of the system's.
            reason = (error.os_error.reason or str(error.os_error)).replace("_", " ").lower()
            return Unavailable(
                f"{self._place(error)} does not speak TLS as it should: {reason}",
                hint=f"if it is to be used without, start the agent with --insecure-registry {host}",
            )
        if isinstance(error, aiohttp.ClientConnectorError):
            number = error.os_error.errno
            reason = os.strerror(number).lower() if number else str(error.os_error)
            return Unavailable(f"cannot reach {self._place(error)}: {reason}")
        if isinstance(error, TimeoutError):
            return Unavailable(f"registry {host} does not go on: nothing came or went for {self._rules.idle_s:.0f} s")
        return Unavailable(f"the connection to registry {host} broke: {error or type(error).__name__}")

    def _place(self, error: aiohttp.ClientConnectorError) -> str:
        """The registry, or where it leads: another host that has its blobs, or gives its tokens."""
        registry = URL(f"//{self.host}")
        if error.host == registry.host and registry.explicit_port in (None, error.port):
            return f"registry {self.host}"
        return f"{error.host}:{error.port}, where registry {self.host} leads"


def address_of(registry: str) -> str:
    """Where the registry of a reference's domain listens."""
    return _DOCKER_HUB if registry == DEFAULT_DOMAIN else registry


def next_page(response: Answer) -> URL | None:
    """Where a long list goes on (RFC 8288); never at another host."""
    link = response.links.get("next")
    url = link.get("url") if link is not None else None
    return url if isinstance(url, URL) and url.origin() == response.url.origin() else None


def _wait_s(response: Answer, now_ns: int) -> float | None:
    """For how long the registry asks to wait (RFC 9110, 10.2.3); None where it does not say, or for too long."""
    text = response.headers.get("Retry-After", "")
    try:
        wait_s = float(text)
    except ValueError:
        try:
            until = email.utils.parsedate_to_datetime(text).replace(tzinfo=datetime.UTC).timestamp()
        except ValueError:
            return None
        wait_s = until - now_ns / 1e9
    return max(wait_s, 0.0) if wait_s <= _LONGEST_WAIT_S else None
