"""Which daemon is meant: from flags, environment and stored contexts to one Endpoint.

Precedence: `--host`, `--context`, SHOAL_HOST, SHOAL_CONTEXT, the current context, this host's socket. Contexts are
kept in one JSON file under ~/.config/shoal; `context` has the commands on them, `client` dials what comes out.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from shoal.errors import Conflict, InvalidArgument, NotFound

DEFAULT_CONTEXT = "default"
DEFAULT_HOST = "unix:///run/shoal/shoal.sock"
AGENT_SOCKET = "/run/shoal/shoal.sock"
MANAGER_PORT = 2377


class Tls(NamedTuple):
    """Files of a client certificate; all empty means: this node's own identity."""

    ca: str = ""
    cert: str = ""
    key: str = ""


NO_TLS = Tls()


class Selection(NamedTuple):
    """What the global flags say, before anything is looked up. `node` is whom a manager should relay to."""

    host: str = ""
    context: str = ""
    node: str = ""
    tls: Tls = Tls()
    debug: bool = False


class Context(NamedTuple):
    """One stored context."""

    name: str
    host: str
    description: str = ""
    tls: Tls = Tls()


class Endpoint(NamedTuple):
    """Where to dial. `kind` is "unix" (`path`), "ssh" (`user`, `address`, `port` or 0, remote `path`) or "tcp":
    `managers`, of which the first that answers will do."""

    kind: str
    host: str
    path: str = ""
    user: str = ""
    address: str = ""
    port: int = 0
    managers: tuple[tuple[str, int], ...] = ()
    tls: Tls = Tls()


class Contexts(NamedTuple):
    """The file of contexts. `current` is "default" when none was chosen."""

    path: str
    current: str = DEFAULT_CONTEXT
    stored: tuple[Context, ...] = ()

    @classmethod
    def load(cls) -> Contexts:
        """Read the file; a missing one is empty. Raises InvalidArgument for one that is broken."""
        base = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")  # noqa: PTH111, PTH118
        path = f"{base}/shoal/contexts.json"
        try:
            with open(path, encoding="utf-8") as file:  # noqa: PTH123  (pathlib costs 5 ms of a client's start)
                text = file.read()
        except FileNotFoundError:
            return cls(path)
        import json  # for who has contexts

        try:
            held = json.loads(text)
            stored = tuple(
                Context(name, each["host"], each.get("description", ""), Tls(**each.get("tls", {})))
                for name, each in held["contexts"].items()
            )
            return cls(path, held["current"], stored)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidArgument(f"{path} is not a file of contexts ({error})", hint="repair or remove it") from error

    def save(self) -> None:
        """Write the file, whole or not at all."""
        import json

        held = {
            "current": self.current,
            "contexts": {
                each.name: {"host": each.host, "description": each.description, "tls": each.tls._asdict()}
                for each in self.stored
            },
        }
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)  # noqa: PTH103, PTH120
        fresh = f"{self.path}.{os.getpid()}"
        with open(fresh, "w", encoding="utf-8") as file:  # noqa: PTH123
            json.dump(held, file, indent=2)
        os.replace(fresh, self.path)  # noqa: PTH105

    def get(self, name: str) -> Context:
        """Raises NotFound for a name that is not stored; "default" always is."""
        if name == DEFAULT_CONTEXT:
            return Context(name, os.environ.get("SHOAL_HOST") or DEFAULT_HOST, "This host, or SHOAL_HOST")
        for each in self.stored:
            if each.name == name:
                return each
        raise NotFound(f'context "{name}" does not exist', hint="'shoal context ls' shows which do")


def current_context(selection: Selection, contexts: Contexts) -> str:
    """The name of the context that counts now; raises Conflict when `--host` and `--context` are both given."""
    if selection.host and selection.context:
        raise Conflict("conflicting options: cannot specify both --host and --context")
    if selection.context:
        return selection.context
    if selection.host or os.environ.get("SHOAL_HOST"):
        return DEFAULT_CONTEXT
    return os.environ.get("SHOAL_CONTEXT") or contexts.current


def choose(selection: Selection) -> Endpoint:
    """The endpoint that the user means."""
    if selection.host:
        if selection.context:
            current_context(selection, Contexts(""))
        return parse(selection.host, selection.tls)
    contexts = Contexts.load()
    context = contexts.get(current_context(selection, contexts))
    return parse(context.host, selection.tls if any(selection.tls) else context.tls)


def parse(host: str, tls: Tls = NO_TLS) -> Endpoint:
    """`unix:///path`, `ssh://[user@]host[:port][/socket]`, `tcp://host[:port]` or `host[:port]`; of the last two, more
    may follow after commas."""
    scheme, separator, rest = host.partition("://")
    if not separator:
        scheme, rest = ("unix", host) if host.startswith("/") else ("tcp", host)
    if scheme == "unix" and rest.startswith("/"):
        return Endpoint("unix", host, path=rest)
    if scheme == "ssh":
        where, slash, path = rest.partition("/")
        user, _, where = where.rpartition("@")
        address, port = _address(where, host, 0)
        if not address.startswith("-") and not user.startswith("-"):  # ssh would take it for an option
            return Endpoint(
                "ssh", host, path=slash + path if path else AGENT_SOCKET, user=user, address=address, port=port
            )
    if scheme == "tcp" and "/" not in rest.rstrip("/"):
        managers = tuple(_address(each, host, MANAGER_PORT) for each in rest.rstrip("/").split(","))
        return Endpoint("tcp", host, managers=managers, tls=tls)
    raise InvalidArgument(f'invalid host "{host}"', hint="give unix:///path, ssh://user@host[:port] or host[:2377]")


def _address(text: str, host: str, default_port: int) -> tuple[str, int]:
    if text.startswith("["):
        address, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    else:
        address, colon, port = text.partition(":")
        if colon and not port:
            address = ""
    if not address or (port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536)):
        raise InvalidArgument(
            f'invalid host "{host}"', hint="an address looks like n1, 10.0.0.1:2377 or [fd00::1]:2377"
        )
    return address, int(port) if port else default_port
