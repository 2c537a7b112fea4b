"""How a registry wants to be convinced: its `WWW-Authenticate` challenges, answered with Basic or with a token.

https://distribution.github.io/distribution/spec/auth/token/ — the network part is `connection`'s.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Sequence

import msgspec
from yarl import URL

from shoal.errors import PermissionDenied, Unavailable

# A user name that says: the password is an identity token (docker's config.json keeps such).
TOKEN_USER = "<token>"
_CLIENT = "shoal"
_CHALLENGE = re.compile(r'\s*([A-Za-z][\w-]*)((?:\s*,?\s*[\w-]+="[^"]*"|\s*,?\s*[\w-]+=[^\s,"]+)*)\s*,?')
_PARAMETER = re.compile(r'([\w-]+)=(?:"([^"]*)"|([^\s,"]+))')


class Credentials(msgspec.Struct, frozen=True):
    """A user of a registry. Never shown."""

    username: str
    password: str

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, password=***)"

    @property
    def basic(self) -> str:
        """The value of an Authorization header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


class Challenge(msgspec.Struct, frozen=True):
    scheme: str
    parameters: dict[str, str]


class TokenRequest(msgspec.Struct, frozen=True):
    """One HTTP request for a token: GET, or POST with a form where there is one."""

    url: URL
    authorization: str
    form: dict[str, str]


class _TokenAnswer(msgspec.Struct):
    token: str = ""
    access_token: str = ""
    refresh_token: str = ""


class Token(msgspec.Struct, frozen=True):
    """`authorization`: the value of an Authorization header. `refresh`: an identity token, where one was asked for and
    the service gives such; whoever holds it needs no password."""

    authorization: str
    refresh: str = ""


def challenges(headers: list[str]) -> list[Challenge]:
    """What the `WWW-Authenticate` headers ask for, schemes in lower case (RFC 9110, 11.6.1)."""
    found = []
    for header in headers:
        for scheme, parameters in _CHALLENGE.findall(header[:4096]):
            pairs = {key.lower(): quoted or plain for key, quoted, plain in _PARAMETER.findall(parameters)}
            found.append(Challenge(scheme.lower(), pairs))
    return found


def token_request(
    challenge: Challenge,
    *,
    registry: str,
    scopes: Sequence[str],
    credentials: Credentials | None,
    lasting: bool = False,
) -> TokenRequest:
    """The request that answers a Bearer challenge of the registry at host `registry`, for what it asks and `scopes`;
    `lasting`: for an identity token as well.

    Raises PermissionDenied when the token service is a stranger to the registry and would get the password.
    """
    realm = URL(challenge.parameters.get("realm", ""))
    if realm.scheme not in ("http", "https") or not realm.host:
        raise Unavailable(f"registry {registry} asks for a token from the invalid address {str(realm)[:200]!r}")
    if credentials is not None and not _related(realm.host, URL(f"//{registry}").host or registry):
        raise PermissionDenied(
            f"registry {registry} asks to send its password to another site, {realm.host}; this is refused",
            hint=f"check the registry's address, or log out of {registry}",
        )
    service = challenge.parameters.get("service", "")
    scopes = merged([*scopes, *challenge.parameters.get("scope", "").split(" ")])
    if credentials is not None and credentials.username == TOKEN_USER:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": credentials.password,
            "client_id": _CLIENT,
            "service": service,
            "scope": " ".join(scopes),
        }
        return TokenRequest(realm, "", form)
    query = [("service", service)] if service else []
    query += [("scope", each) for each in scopes]
    if credentials is not None:
        query.append(("account", credentials.username))
    if lasting:
        query += [("offline_token", "true"), ("client_id", _CLIENT)]
    url = realm.extend_query(query)
    return TokenRequest(url, credentials.basic if credentials is not None else "", {})


def token_of(answer: bytes, *, realm: str) -> Token:
    """What a token service answered. Raises Unavailable."""
    try:
        found = msgspec.json.decode(answer, type=_TokenAnswer)
    except msgspec.MsgspecError as error:
        raise Unavailable(f"the token service {realm} gave an answer that cannot be read: {error}") from error
    token = found.token or found.access_token
    if not token:
        raise Unavailable(f"the token service {realm} gave no token")
    return Token(f"Bearer {token}", found.refresh_token)


def merged(scopes: Sequence[str]) -> list[str]:
    """Scopes (`TYPE:NAME:ACTION,…`) with one for each thing, in order."""
    found: dict[str, dict[str, None]] = {}
    for scope in scopes:
        thing, colon, actions = scope.rpartition(":")
        if colon:
            found.setdefault(thing, {}).update(dict.fromkeys(actions.split(",")))
    return [f"{thing}:{','.join(actions)}" for thing, actions in found.items()]


def _related(first: str, second: str) -> bool:
    """The same host, or hosts of one site: the last two labels are the same (auth.docker.io, registry-1.docker.io)."""
    if first.lower() == second.lower():
        return True
    if _is_address(first) or _is_address(second):
        return False
    one, other = first.lower().split("."), second.lower().split(".")
    return len(one) > 1 and one[-2:] == other[-2:]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
