"""Rules: what the operator of this host says of registries. Read once, when the agent starts; a registry's folder of
certificates is read whenever a connection to it begins, as docker does.

    CERTIFICATES/HOST[:PORT]/*.crt              CAs that vouch for the registry, besides the system's
    CERTIFICATES/HOST[:PORT]/*.cert, *.key      what this host shows of itself
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Sequence
from pathlib import Path

import msgspec
from yarl import URL

from shoal.errors import InvalidArgument
from shoal.reference import DEFAULT_DOMAIN

CERTIFICATES = Path("/etc/shoal/certs.d")
# Between two pieces of an answer, or of what is sent; a transfer as a whole may take what it takes.
IDLE_S = 60.0
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_LOOPBACK = (ipaddress.ip_network("::1/128"), ipaddress.ip_network("127.0.0.0/8"))


class Rules(msgspec.Struct, frozen=True):
    """`insecure`: hosts, with or without port, and `networks` where plain HTTP and any certificate are good enough.
    `mirrors` of each registry are asked before it, in order."""

    insecure: frozenset[str] = frozenset()
    networks: tuple[Network, ...] = ()
    mirrors: dict[str, tuple[URL, ...]] = {}
    certificates: Path = CERTIFICATES
    idle_s: float = IDLE_S

    @property
    def plain(self) -> list[str]:
        """What needs no TLS, in order, as a flag would say it."""
        return [*sorted(self.insecure), *sorted(map(str, (*self.networks, *_LOOPBACK)))]

    @property
    def written_mirrors(self) -> list[str]:
        """As the flag says them."""
        return [
            f"{'' if registry == DEFAULT_DOMAIN else f'{registry}='}{url}"
            for registry, urls in self.mirrors.items()
            for url in urls
        ]

    def may_be_plain(self, authority: str) -> bool:
        """Whether HOST[:PORT] needs no TLS: this host itself, as with docker, and what is listed."""
        host = URL(f"//{authority}").host or ""
        if is_local(authority) or host in self.insecure or authority in self.insecure:
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in self.networks)

    def tls(self, authority: str) -> ssl.SSLContext | bool:
        """How to speak TLS there; True: as the system says, False: any certificate will do.

        Raises InvalidArgument for certificates that cannot be used.
        """
        folder = self.certificates / authority
        lax = self.may_be_plain(authority)
        if "/" in authority or not folder.is_dir():
            return not lax
        context = ssl.create_default_context()
        if lax:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        for path in sorted(folder.iterdir()):
            _take(context, path)
        return context


def read(insecure: Sequence[str], mirrors: Sequence[str], certificates: Path) -> Rules:
    """From the agent's flags: HOST[:PORT] or a network, and [REGISTRY=]URL. Raises InvalidArgument."""
    hosts, networks, found = set(), [], dict[str, tuple[URL, ...]]()
    for text in insecure:
        if "/" in text:
            networks.append(_network(text))
        else:
            hosts.add(text)
    for text in mirrors:
        registry, equals, address = text.rpartition("=")
        url = URL(address.rstrip("/"))
        if url.scheme not in ("http", "https") or not url.host or url.user or url.query_string:
            raise InvalidArgument(f"invalid mirror {text!r}", hint="write [REGISTRY=]http[s]://HOST[:PORT]")
        name = registry if equals else DEFAULT_DOMAIN
        found[name] = (*found.get(name, ()), url)
        if url.scheme == "http":
            hosts.add(url.authority)
    return Rules(frozenset(hosts), tuple(networks), found, certificates)


def is_local(authority: str) -> bool:
    """True for hosts by which a machine reaches itself."""
    host = URL(f"//{authority}").host or ""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _network(text: str) -> Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise InvalidArgument(
            f"invalid insecure registry {text!r}: {error}", hint="write HOST[:PORT] or a network"
        ) from (error)


def _take(context: ssl.SSLContext, path: Path) -> None:
    """Docker's rules for the files of a registry's folder."""
    try:
        if path.suffix == ".crt":
            context.load_verify_locations(path)
        elif path.suffix == ".cert":
            key = path.with_suffix(".key")
            if not key.exists():
                raise InvalidArgument(
                    f"missing key {key} for client certificate {path}", hint="CA certificates end in .crt"
                )
            context.load_cert_chain(path, key)
        elif path.suffix == ".key" and not path.with_suffix(".cert").exists():
            raise InvalidArgument(f"missing client certificate {path.with_suffix('.cert')} for key {path}")
    except (ssl.SSLError, OSError) as error:
        raise InvalidArgument(f"the certificate {path} cannot be used: {error}") from error
