"""Join: from a token to a first certificate.

The token carries the hash of the cluster's root, so the host knows whom it may trust before it says its secret:
the root is fetched in a handshake that trusts nobody, compared with the token, and only then dialled as the one
root. The manager's half is `manager/ca`.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

import msgspec
from OpenSSL import SSL, crypto

from agent.address import towards
from shoal.errors import InvalidArgument, PermissionDenied, ShoalError, Unavailable
from shoal.files import read_optional, write_atomic
from shoal.ids import base36
from shoal.model.node import Availability
from shoal.rpc import dial, translated
from shoal.settings import JOIN_PORT_OFFSET, MANAGER_PORT, host_port
from shoal.tls import Identity, csr_for, new_key
from shoal.v1 import ca_pb2, ca_pb2_grpc, types_pb2

log = logging.getLogger(__name__)

TIMEOUT_S = 10.0
_TOKEN = re.compile(r"SHTKN-1-([0-9a-z]{50})-([0-9a-z]{25})")


class Token(msgspec.Struct, frozen=True):
    """`root_hash` is 50 base-36 digits of the SHA-256 of the root's DER."""

    text: str
    root_hash: str

    def __repr__(self) -> str:
        return "Token(***)"


class Joined(msgspec.Struct, frozen=True):
    """`address` is where the others reach this host, if it was looked for."""

    identity: Identity
    managers: tuple[str, ...]
    address: str = ""


def parse_token(text: str) -> Token:
    """Raises InvalidArgument for what is no token."""
    found = _TOKEN.fullmatch(text.strip())
    if found is None:
        raise InvalidArgument(
            "invalid join token", hint='print a valid one with "shoal swarm join-token worker" on a manager'
        )
    return Token(found[0], found[1])


def root_hash(root: crypto.X509) -> str:
    """What a token says of a root certificate."""
    der = crypto.dump_certificate(crypto.FILETYPE_ASN1, root)
    return base36(int.from_bytes(hashlib.sha256(der).digest()), 50)


async def join_first(
    token: Token, managers: Sequence[str], *, key_pem: str, availability: Availability, address: str = ""
) -> Joined:
    """`join` by the first of `managers` that lets this host in. Raises what the last one said."""
    last: ShoalError = InvalidArgument("no manager to join at", hint="give the address of one: HOST:2377")
    for manager in managers:
        try:
            own = address or towards(*manager_address(manager))
            joined = await join(
                token, manager, key_pem=key_pem, availability=availability, hostname=socket.gethostname()
            )
        except ShoalError as error:
            last = error
        else:
            log.info("joined node=%s manager=%s", joined.identity.node_id, manager)
            return msgspec.structs.replace(joined, address=own)
    raise last


def joining_key(path: Path) -> str:
    """The key that this host joins with: kept at `path` until it has joined, so that a join that breaks off goes on as
    the same node and not as another one."""
    if (kept := read_optional(path)) is None:
        kept = new_key().encode()
        write_atomic(path, kept)
    return kept.decode()


async def join(token: Token, manager: str, *, key_pem: str, availability: Availability, hostname: str) -> Joined:
    """A certificate over `key_pem` for this host from the manager at `manager` ("HOST" or "HOST:PORT", its mTLS port).

    Asked again with the same key after it broke off, the manager knows the host and lets it in once.
    Raises PermissionDenied when the manager is of another cluster or refuses the token, Unavailable when nobody
    answers there.
    """
    host, port = manager_address(manager)
    port += JOIN_PORT_OFFSET
    root_ca_pem = await _trusted_root(token, host, port)
    request = ca_pb2.IssueCertificateRequest(
        token=token.text,
        csr_pem=csr_for(key_pem, hostname),
        availability=types_pb2.Availability.Value(f"AVAILABILITY_{availability.name}"),
        hostname=hostname,
    )
    async with dial(f"{host}:{port}", root_ca_pem=root_ca_pem) as channel:
        with translated():
            answer = await ca_pb2_grpc.JoinServiceStub(channel).IssueCertificate(request, timeout=TIMEOUT_S)
    identity = Identity(answer.certificate_pem, key_pem, answer.root_ca_pem)
    if identity.node_id != answer.node_id:
        raise ShoalError(f"the manager at {manager} issued a certificate for another node ({identity.node_id})")
    return Joined(identity, tuple(answer.managers) or (f"{host}:{port - JOIN_PORT_OFFSET}",))


def manager_address(text: str) -> tuple[str, int]:
    """ "HOST" or "HOST:PORT" as (host, port). Raises InvalidArgument for anything else."""
    try:
        host, port = host_port(text, MANAGER_PORT)
    except ValueError as error:
        raise InvalidArgument(f"invalid manager address {text!r}: {error}", hint="give HOST:PORT") from error
    if not host:
        raise InvalidArgument(f"invalid manager address {text!r}", hint="give HOST:PORT")
    return host, port


async def _trusted_root(token: Token, host: str, port: int) -> str:
    chain = await asyncio.get_running_loop().run_in_executor(None, _shown_chain, host, port)
    # While a cluster's root is being replaced, and for a while after that, both roots are shown.
    root = next((each for each in chain if root_hash(each) == token.root_hash), None)
    if root is None:
        raise PermissionDenied(
            f"the root CA of the manager at {host}:{port - JOIN_PORT_OFFSET} is not the one that the join token is for",
            hint="check the address, and print the token anew on a manager of the swarm to join",
        )
    return crypto.dump_certificate(crypto.FILETYPE_PEM, root).decode()


def _shown_chain(host: str, port: int) -> list[crypto.X509]:
    """The certificates that a server shows, its own first; nothing is verified. Blocks, at most 10 s a step."""
    where = f"{host}:{port}"
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    try:
        with socket.create_connection((host, port), timeout=TIMEOUT_S) as link:
            # A Python timeout makes the socket non-blocking, which OpenSSL answers with WantReadError.
            link.settimeout(None)
            bound = struct.pack("ll", int(TIMEOUT_S), 0)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, bound)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, bound)
            connection = SSL.Connection(context, link)
            connection.set_alpn_protos([b"h2"])
            connection.set_connect_state()
            connection.do_handshake()
            chain = connection.get_peer_cert_chain()
    except OSError as error:
        reason = error.strerror or str(error)
        raise Unavailable(
            f"no manager answers at {where}: {reason}",
            hint=f"is it up, and are its ports {port - JOIN_PORT_OFFSET} and {port} open to this host?",
        ) from error
    except SSL.Error as error:
        raise Unavailable(f"what answers at {where} is no manager of a swarm: TLS failed") from error
    if not chain:
        raise Unavailable(f"what answers at {where} is no manager of a swarm: it shows no certificate")
    return list(chain)
