"""Real registries for tests: Debian's docker-registry as a process on loopback, which can be killed and started again;
what lies between it and a client and breaks; and a token service.

    Registry    the process; `users` and `tokens` say whom it lets in, `tls` how it shows itself
    Proxy       hears every request, and does to it what a test says
    Tokens      gives tokens that a registry believes (https://distribution.github.io/distribution/spec/auth/token/)
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import secrets
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import trustme
from aiohttp import web
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from yarl import URL

READY_S = 120.0
USER, PASSWORD = "tester", "secret"
# bcrypt, which is all that docker-registry knows.
_HTPASSWD = f"{USER}:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"
Fault = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


class Registry:
    """One docker-registry, with its data below `folder`. `host` is where it listens ("127.0.0.1:PORT")."""

    def __init__(
        self, folder: Path, *, host: str = "127.0.0.1", users: bool = False, tokens: Tokens | None = None, tls: str = ""
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with socket.create_server((host, 0)) as probe:
            self.host = f"{host}:{probe.getsockname()[1]}"
        self._folder = folder
        self._scheme = "https" if tls else "http"
        self._process: subprocess.Popen[bytes] | None = None
        self._config = folder / "config.yml"
        auth = ""
        if users:
            (folder / "htpasswd").write_text(_HTPASSWD)
            auth = f"auth: {{htpasswd: {{realm: basic-realm, path: {folder}/htpasswd}}}}\n"
        if tokens is not None:
            tokens.authority.cert_pem.write_to_path(folder / "issuer.pem")
            said = f"realm: '{tokens.realm}', service: registry, issuer: tests, rootcertbundle: {folder}/issuer.pem"
            auth = f"auth: {{token: {{{said}}}}}\n"
        self._config.write_text(
            "version: 0.1\nlog: {level: error}\n"
            f"storage: {{filesystem: {{rootdirectory: {folder}/data}}, delete: {{enabled: true}}}}\n"
            f"http: {{addr: '{self.host}', secret: s, relativeurls: true{tls}}}\n{auth}"
        )

    def start(self) -> Registry:
        """Return once it answers."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(["docker-registry", "serve", str(self._config)], stdout=log, stderr=log)
        deadline = time.monotonic() + READY_S
        try:
            while not self._answers():
                assert self._process.poll() is None and time.monotonic() < deadline, (self._folder / "log").read_text()
                time.sleep(0.02)
        except BaseException:
            self.kill()
            raise
        return self

    def kill(self) -> None:
        """SIGKILL; returns once it is gone. `start` brings it back with what it has on the disk."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        host, _, port = self.host.rpartition(":")
        try:
            if self._scheme == "https":  # who has no certificate is not let in
                socket.create_connection((host, int(port)), timeout=5).close()
            else:
                urllib.request.urlopen(f"http://{self.host}/v2/", timeout=5).close()
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True


class Proxy:
    """Passes requests on to `upstream` ("HOST:PORT"). `asked` has ("METHOD", path) of each, `proofs` what it showed of
    itself; the first of `faults` that gives a response, or breaks the connection, keeps the request.

    docker-registry writes into the address of an upload how far it is, and forgets the upload when that is not so:
    after a cut nobody could go on. Other registries know by themselves; `forgiving` makes this one such.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.asked: list[tuple[str, str]] = []
        self.proofs: list[str] = []
        self.faults: list[Fault] = []
        self.host = ""
        self.forgiving = False
        self._newest: dict[str, str] = {}

    def count(self, method: str, part: str = "") -> int:
        """Requests so far."""
        return sum(1 for each, path in self.asked if each == method and part in path)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.method, request.path_qs))
        self.proofs.append(request.headers.get("Authorization", ""))
        for fault in list(self.faults):
            if (response := await fault(request)) is not None:
                return response
        return await self.forward(request, request.content.iter_any() if request.body_exists else None)

    async def forward(
        self,
        request: web.Request,
        body: AsyncIterator[bytes] | None,
        *,
        cut_after: int | None = None,
        hold: Callable[[], Awaitable[object]] | None = None,
    ) -> web.StreamResponse:
        """The registry's answer; after `cut_after` bytes of it the connection breaks, once `hold` has returned."""
        url = self._url(request)
        headers = {k: v for k, v in request.headers.items() if k.lower() not in ("content-length", "transfer-encoding")}
        if body is not None and "Content-Length" in request.headers and cut_after is None:
            headers["Content-Length"] = request.headers["Content-Length"]
        async with (
            aiohttp.ClientSession(auto_decompress=False) as session,
            session.request(request.method, url, headers=headers, data=body, allow_redirects=False) as answer,
        ):
            self._learn(answer)
            response = web.StreamResponse(status=answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in ("transfer-encoding", "connection"):
                    response.headers.add(name, value)
            await response.prepare(request)
            sent = 0
            async for chunk in answer.content.iter_chunked(16 << 10):
                if cut_after is not None and sent + len(chunk) > cut_after:
                    if hold is not None:
                        await hold()
                    break_off(request)
                    return response
                await response.write(chunk)
                sent += len(chunk)
            await response.write_eof()
            return response

    async def send(self, request: web.Request, body: bytes) -> None:
        """Another body than what came, to the registry; nobody hears the answer."""
        kept = ("content-length", "content-range", "transfer-encoding")
        headers = {k: v for k, v in request.headers.items() if k.lower() not in kept}
        async with (
            aiohttp.ClientSession() as session,
            session.request(request.method, self._url(request), headers=headers, data=body) as answer,
        ):
            assert answer.status < 300, await answer.text()
            self._learn(answer)

    def _url(self, request: web.Request) -> URL:
        url = URL(f"http://{self.upstream}{request.path_qs}", encoded=True)
        newest = self._newest.get(request.path)
        return url.update_query(URL(newest, encoded=True).query) if self.forgiving and newest else url

    def _learn(self, answer: aiohttp.ClientResponse) -> None:
        if location := answer.headers.get("Location"):
            self._newest[URL(location).path] = location


def break_off(request: web.Request) -> None:
    """End the connection as a network does."""
    if request.transport is not None:
        request.transport.abort()


def once(method: str, part: str, act: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> Fault:
    """`act` on the first request of this method with this in its path."""
    left = [1]

    async def fault(request: web.Request) -> web.StreamResponse | None:
        if left and request.method == method and part in request.path:
            left.clear()
            return await act(request)
        return None

    return fault


@asynccontextmanager
async def proxy(upstream: str) -> AsyncIterator[Proxy]:
    made = Proxy(upstream)
    async with serving(made.handle) as host:
        made.host = host
        yield made


@asynccontextmanager
async def serving(handle: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    """ "127.0.0.1:PORT" of an HTTP server, in this loop."""
    runner = web.ServerRunner(web.Server(handle), shutdown_timeout=0.1)  # type: ignore[arg-type]
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield "{}:{}".format(*runner.addresses[0])
    finally:
        with contextlib.suppress(asyncio.TimeoutError):
            await runner.cleanup()


class Tokens:
    """Who shows the user's password, or an identity token, gets what they ask for; who shows nothing may pull what is
    below `public/`. `asked` has the scopes of each request."""

    def __init__(self) -> None:
        self.authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
        leaf = self.authority.issue_cert("tokens", key_type=trustme.KeyType.ECDSA)
        chain = [ssl.PEM_cert_to_DER_cert(each.bytes().decode()) for each in leaf.cert_chain_pems[:1]]
        self._chain = [base64.b64encode(each).decode() for each in chain]
        key = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key
        self.refresh = secrets.token_hex(8)
        self.asked: list[list[str]] = []
        self.realm = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        scopes = str(form.get("scope", "")).split() if form else request.query.getall("scope", [])
        self.asked.append(scopes)
        basic = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        shown = request.headers.get("Authorization", "")
        known = shown == basic or form.get("refresh_token") == self.refresh
        if not known and (shown or form):
            return web.json_response({"details": "incorrect username or password"}, status=401)
        granted = [access for scope in scopes if (access := self._granted(scope, known=known))]
        said = {"token": self._sign(granted), "expires_in": 300}
        if request.query.get("offline_token") == "true":
            said["refresh_token"] = self.refresh
        return web.json_response(said)

    def _granted(self, scope: str, *, known: bool) -> dict[str, object] | None:
        kind, name, actions = scope.split(":", 2)
        wanted = [each for each in actions.split(",") if known or (each == "pull" and name.startswith("public/"))]
        return {"type": kind, "name": name, "actions": wanted} if wanted else None

    def _sign(self, access: list[dict[str, object]]) -> str:
        now = int(time.time())
        head = {"typ": "JWT", "alg": "ES256", "x5c": self._chain}
        claims = {
            "iss": "tests", "sub": USER, "aud": "registry", "exp": now + 300, "nbf": now - 10, "iat": now,
            "jti": secrets.token_hex(8), "access": access,
        }  # fmt: skip
        signed = ".".join(_packed(json.dumps(each).encode()) for each in (head, claims))
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_packed(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


@asynccontextmanager
async def token_service() -> AsyncIterator[Tokens]:
    made = Tokens()
    async with serving(made.handle) as host:
        made.realm = f"http://{host}/token"
        yield made


def _packed(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
