"""A registry's credentials, where docker keeps them: in its file (`dockerconfig`), or with a helper that it names."""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from cli import dockerconfig
from shoal.errors import InvalidArgument, ShoalError

if TYPE_CHECKING:
    from shoal.v1 import types_pb2

DOCKER_IO = "docker.io"
_HUB = "https://index.docker.io/v1/"
# Who holds an identity token instead of a password, in docker's files and helpers, and towards the agent.
TOKEN_USER = "<token>"


class Credentials(NamedTuple):
    username: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, password=***)"

    def message(self) -> types_pb2.RegistryCredentials:
        """For a request."""
        from shoal.v1 import types_pb2  # the parser of a command line that needs none does not pay for it

        return types_pb2.RegistryCredentials(username=self.username, password=self.password)


def registry_of(reference: str) -> str:
    """The registry's host of an image: what stands before the first slash when it looks like a host."""
    first, slash, _ = reference.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else DOCKER_IO


def server_of(registry: str) -> str:
    """As docker's file calls a registry."""
    return _HUB if registry in (DOCKER_IO, "index.docker.io", "registry-1.docker.io", "", _HUB) else registry


def host_of(address: str) -> str:
    """The registry that somebody logs in to: an address may be written as a URL."""
    bare = address.partition("://")[2] or address
    host = bare.partition("/")[0]
    return DOCKER_IO if server_of(host) == _HUB else host


def find(reference: str) -> Credentials:
    """The credentials for an image's registry; empty ones when there are none."""
    return known(registry_of(reference))


def known(registry: str) -> Credentials:
    """The credentials for a registry; empty ones when there are none.

    Raises InvalidArgument for a broken file, ShoalError for a helper that fails.
    """
    config = dockerconfig.load()
    server = server_of(registry)
    if helper := dockerconfig.helper_of(config, server):
        return _from_helper(helper, server)
    names = (
        [server, "index.docker.io", DOCKER_IO] if server == _HUB else [server, f"https://{server}", f"http://{server}"]
    )
    auths = config.get("auths", {})
    for name in [*names, *(f"{each}/" for each in names), *(f"{each}/v1/" for each in names)]:
        if name in auths:
            return _decoded(auths[name])
    return Credentials()


def keep(registry: str, username: str, password: str, *, identity_token: str = "") -> bool:
    """Write credentials down; whether they now lie in the file for everybody who can read it.

    An identity token is kept instead of the password where there is one.
    """
    config = dockerconfig.load()
    server = server_of(registry)
    auths = config.setdefault("auths", {})
    if helper := dockerconfig.helper_of(config, server):
        secret = {
            "ServerURL": server,
            "Username": TOKEN_USER if identity_token else username,
            "Secret": identity_token or password,
        }
        dockerconfig.ask(helper, "store", json.dumps(secret))
        auths[server] = {}
    else:
        said = f"{username}:{'' if identity_token else password}"
        auths[server] = {"auth": base64.b64encode(said.encode()).decode()}
        if identity_token:
            auths[server]["identitytoken"] = identity_token
    dockerconfig.save(config)
    return not helper


def forget(registry: str) -> None:
    """Take credentials away; harmless where there are none."""
    config = dockerconfig.load()
    server = server_of(registry)
    if helper := dockerconfig.helper_of(config, server):
        dockerconfig.ask(helper, "erase", server)
    names = {server, f"https://{server}", f"http://{server}"}
    kept = {name: entry for name, entry in config.get("auths", {}).items() if name.rstrip("/") not in names | {server}}
    kept.pop(server, None)
    if kept != config.get("auths"):
        dockerconfig.save({**config, "auths": kept})


def _decoded(entry: dict[str, str]) -> Credentials:
    if entry.get("identitytoken"):
        return Credentials(TOKEN_USER, entry["identitytoken"])
    if not entry.get("auth"):
        return Credentials(entry.get("username", ""), entry.get("password", ""))
    path = dockerconfig.path()
    try:
        user, colon, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{path} holds a broken auth entry: {error}", hint="log in again") from error
    if not colon:
        raise InvalidArgument(f"{path} holds an auth entry without a password", hint="log in again")
    return Credentials(user, password.rstrip("\0"))


def _from_helper(helper: str, server: str) -> Credentials:
    """Docker's protocol for helpers: the server on stdin, JSON on stdout."""
    said = dockerconfig.ask(helper, "get", server)
    if said is None:
        return Credentials()
    try:
        answer: Any = json.loads(said)
        return Credentials(answer["Username"], answer["Secret"])
    except (ValueError, KeyError, TypeError) as error:
        raise ShoalError(f"docker-credential-{helper} gave an answer that cannot be read: {error}") from error
