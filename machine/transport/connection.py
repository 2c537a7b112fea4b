"""One connection to one host, for a whole run: dialled through its jumps, with the host's key checked, logged in.

Programs run on it as root, through sudo where the user is somebody else. sshd allows ten sessions on a connection; we
take eight. Faults of the link are Unavailable, of keys and passwords PermissionDenied.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import select
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import paramiko

from machine.transport.config import Hop
from machine.transport.credential import Credentials
from machine.transport.hostkey import KnownHosts, Policy, Shown
from shoal.backoff import Backoff
from shoal.errors import DeadlineExceeded, PermissionDenied, ShoalError, Unavailable

_CHANNELS = 8
_ATTEMPTS = 4
_CHUNK = 1 << 20
# AES-GCM is one pass in hardware; what is left out are CBC and 3DES.
_CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)
# paramiko tells what we raise, with a traceback, to whoever listens.
logging.getLogger("paramiko").addHandler(logging.NullHandler())


class Rules:
    """How hosts are dialled in one run. `own_hosts` is the file where new hosts' keys are written down."""

    def __init__(
        self,
        credentials: Credentials,
        *,
        own_hosts: Path,
        policy: Policy = Policy.STRICT,
        timeout_s: float = 15,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.credentials = credentials
        self.own_hosts = own_hosts
        self.policy = policy
        self.timeout_s = timeout_s
        self.pause = pause


class Connection:
    """Logged in at the last host of a way. Threads may share it, each with channels of its own."""

    def __init__(self, transports: Sequence[paramiko.Transport], hop: Hop, credentials: Credentials) -> None:
        self.hop = hop
        self._transports = tuple(transports)
        self._credentials = credentials
        self._channels = threading.BoundedSemaphore(_CHANNELS)

    @classmethod
    def open(cls, way: Sequence[Hop], rules: Rules) -> Connection:
        """Dial, again with jitter where nobody answers or sshd is too busy to say its name."""
        backoff = Backoff(0.5, 4)
        for attempt in range(_ATTEMPTS):
            try:
                return cls._open(way, rules)
            except Unavailable:
                if attempt + 1 == _ATTEMPTS:
                    raise
            rules.pause(backoff.next())
        raise AssertionError("the last attempt raises")

    @classmethod
    def _open(cls, way: Sequence[Hop], rules: Rules) -> Connection:
        transports: list[paramiko.Transport] = []
        try:
            for hop in way:
                transports.append(_log_in(hop, _socket(hop, transports, rules), rules))
        except BaseException:
            _close(transports)
            raise
        return cls(transports, way[-1], rules.credentials)

    def close(self) -> None:
        _close(self._transports)

    @property
    def open_still(self) -> bool:
        return self._transports[-1].is_active()

    @contextlib.contextmanager
    def program(self, text: str, *, root: bool = True) -> Iterator[paramiko.Channel]:
        """A channel to a program, given in the language of sh; what it says comes from its beginning."""
        with self._channels:
            channel = self._session()
            try:
                if root:
                    self._become_root(channel, text)
                else:
                    channel.exec_command(f"exec sh -c {shlex.quote(text)}")
                yield channel
            except (OSError, EOFError, paramiko.SSHException) as error:
                raise Unavailable(f"the connection to {self.hop.shown} broke: {why(error)}") from error
            finally:
                channel.close()

    def upload(self, source: Path, target: str, *, timeout_s: float = 600) -> None:
        """Write a file of the host, as root. Through `cat`, because SFTP's packets of 32 KiB cost a third of the
        rate; whoever uploads compares checksums afterwards."""
        with self.program(f"exec cat > {shlex.quote(target)}") as channel, source.open("rb") as file:
            channel.settimeout(timeout_s)
            whole = False
            with contextlib.suppress(OSError):  # it ended before it had read all: it says why
                while data := file.read(_CHUNK):
                    channel.sendall(data)
                channel.shutdown_write()
                whole = True
            said = drain(channel, timeout_s=timeout_s)
            if said.code or not whole:
                why = said.stderr.decode(errors="replace").strip() or "the connection broke"
                raise ShoalError(f"{target} cannot be written on {self.hop.address}: {why}")

    def _session(self) -> paramiko.Channel:
        try:
            channel = self._transports[-1].open_session(timeout=15)
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise Unavailable(f"{self.hop.shown} opens no session: {why(error)}") from error
        channel.settimeout(60)
        return channel

    def _become_root(self, channel: paramiko.Channel, text: str) -> None:
        """Start `text` as root. sudo is recognised by a prompt that nobody else can write, and given the password then
        and only then: a sudo that asks nothing would hand it to the program."""
        prompt, ready = f"sudo-{secrets.token_hex(8)}", f"ready-{secrets.token_hex(8)}"
        inner = f"echo {ready} >&2; {text}"
        sudo = f"exec sudo -S -p {prompt} -- sh -c {shlex.quote(inner)}"
        channel.exec_command(f"exec sh -c {shlex.quote(f'[ $(id -u) = 0 ] || {sudo}; {inner}')}")
        said, asked = b"", 0
        while ready.encode() not in said:
            data = channel.recv_stderr(4096)
            if not data:
                reason = said.decode(errors="replace").replace(prompt, "").strip()
                raise PermissionDenied(f"{self.hop.user} cannot be root on {self.hop.address}: {reason}")
            said += data
            if said.count(prompt.encode()) > asked:
                asked += 1
                if asked > 1:
                    raise PermissionDenied(f"the sudo password of {self.hop.user} on {self.hop.address} is wrong")
                channel.sendall(f"{self._credentials.sudo_password(self.hop)}\n".encode())


def why(error: Exception) -> str:
    """Of a link that broke: sockets and paramiko often say nothing but a class."""
    return str(error) or {"EOFError": "the other end hung up", "TimeoutError": "it did not answer in time"}.get(
        type(error).__name__, type(error).__name__
    )


class Said:
    """All that a program said, and its exit code."""

    def __init__(self, code: int, stdout: bytes, stderr: bytes) -> None:
        self.code = code
        self.stdout = stdout
        self.stderr = stderr


def drain(channel: paramiko.Channel, *, timeout_s: float) -> Said:
    """Read both streams until the program has ended."""
    out, err = bytearray(), bytearray()
    for stream, data in streams(channel, timeout_s=timeout_s):
        (out if stream == "stdout" else err).extend(data)
    return Said(channel.recv_exit_status(), bytes(out), bytes(err))


def streams(channel: paramiko.Channel, *, timeout_s: float) -> Iterator[tuple[str, bytes]]:
    """What comes on "stdout" and "stderr", until both end. Raises DeadlineExceeded when nothing comes for so long."""
    while True:
        if channel.recv_ready():
            yield "stdout", channel.recv(_CHUNK)
        elif channel.recv_stderr_ready():
            yield "stderr", channel.recv_stderr(_CHUNK)
        elif channel.eof_received or channel.closed:
            # What came between the questions above and this one is still to be read.
            if not (channel.recv_ready() or channel.recv_stderr_ready()):
                return
        elif not select.select([channel], [], [], timeout_s)[0]:
            raise DeadlineExceeded(f"the host said nothing for {timeout_s:g} s")


class _Transport(paramiko.Transport):
    """With the kinds of host keys that known_hosts has for the host asked for first (RFC 4253, 7.1)."""

    wanted_kinds: tuple[str, ...] = ()

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        offered = tuple(super().preferred_keys)
        wanted = set(self.wanted_kinds)
        if "ssh-rsa" in wanted:
            wanted |= {"rsa-sha2-512", "rsa-sha2-256"}
        first = [each for each in offered if each in wanted or ("*-cert" in wanted and "-cert-" in each)]
        return (*first, *(each for each in offered if each not in first))


def _socket(hop: Hop, before: Sequence[paramiko.Transport], rules: Rules) -> socket.socket | paramiko.Channel:
    where = (hop.address, hop.port)
    if before:
        try:
            return before[-1].open_channel("direct-tcpip", where, ("127.0.0.1", 0), timeout=rules.timeout_s)
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise Unavailable(f"{hop.shown} cannot be reached from {before[-1].getpeername()[0]}: {error}") from error
    if hop.proxy_command:
        return paramiko.ProxyCommand(hop.proxy_command)  # type: ignore[return-value]
    try:
        link = socket.create_connection(where, timeout=rules.timeout_s)
    except OSError as error:
        raise Unavailable(f"{hop.shown} cannot be reached: {error.strerror or error}") from error
    # paramiko writes many small packets; Nagle would hold each back for a round trip.
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return link


def _log_in(hop: Hop, link: socket.socket | paramiko.Channel, rules: Rules) -> paramiko.Transport:
    known = KnownHosts(rules.own_hosts, hop.known_hosts)
    transport = _Transport(link, disabled_algorithms={"keys": ["ssh-rsa"]})
    try:
        transport.wanted_kinds = known.kinds(hop.known_as)
        transport.get_security_options().ciphers = _CIPHERS
        transport.banner_timeout = transport.auth_timeout = rules.timeout_s
        transport.start_client(timeout=rules.timeout_s)
        key = transport.get_remote_server_key()
        signed = getattr(key, "public_blob", None)
        shown = Shown(key.get_name(), key.asbytes(), signed.key_blob if signed else b"")
        known.check(hop.known_as, shown, policy=rules.policy, pinned=hop.pinned)
        _authenticate(transport, hop, rules.credentials)
        transport.set_keepalive(15)
    except (OSError, EOFError, paramiko.SSHException) as error:
        transport.close()
        raise Unavailable(f"{hop.shown} does not speak SSH: {why(error)}") from error
    except BaseException:
        transport.close()
        raise
    return transport


def _authenticate(transport: paramiko.Transport, hop: Hop, credentials: Credentials) -> None:
    tried = 0
    methods = {"publickey", "password", "keyboard-interactive"}
    for key in credentials.keys(hop):
        tried += 1
        try:
            if not transport.auth_publickey(hop.user, key):
                return
            raise PermissionDenied(f"{hop.shown} asks for a second proof of who you are, which is not supported")
        except paramiko.BadAuthenticationType as error:
            methods = set(error.allowed_types)
            break
        except paramiko.AuthenticationException:
            continue
    if methods & {"password", "keyboard-interactive"} and (password := credentials.password(hop)):
        try:
            transport.auth_password(hop.user, password)
        except paramiko.AuthenticationException as error:
            raise PermissionDenied(f"{hop.shown} takes neither {tried} keys nor the password") from error
        return
    raise PermissionDenied(
        f"{hop.shown} takes none of {tried} keys",
        hint="name one with ssh: {identity: …}, add it to the agent, or give a password",
    )


def _close(transports: Sequence[paramiko.Transport]) -> None:
    for each in reversed(transports):
        each.close()
