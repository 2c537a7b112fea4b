"""Settings: what the manager's command line says, parsed at the edge."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import msgspec

from manager.api.cluster import check
from manager.founding import Founder
from shoal import defaults, process
from shoal.errors import InvalidArgument
from shoal.model.access import StoreAccess
from shoal.model.cluster import ClusterSpec
from shoal.model.node import Availability
from shoal.settings import ETCD_PREFIX, MANAGER_PORT

# Flags of etcd that name a file.
_FILES = {
    "ca": "the root certificate that its own is to be checked by",
    "cert": "the certificate to show it",
    "key": "that certificate's key",
    "password_file": "the password of --etcd-user",
}


class Settings(msgspec.Struct, frozen=True):
    """What the command line says. `founder` is there with --init; `store` says where the state is kept."""

    data_dir: Path
    identity_dir: Path
    socket: Path
    listen: str
    advertise: str
    log_level: str
    founder: Founder | None
    store: StoreAccess = StoreAccess()


def parse(argv: Sequence[str]) -> Settings:
    """Exits 2 with the usage for what is no argument of ours."""
    parser = argparse.ArgumentParser(
        prog="shoal-manager", description="A manager of a cluster; its host's agent starts it."
    )
    path = process.absolute
    parser.add_argument("--data-dir", type=path, required=True, help="the store and the seal")
    parser.add_argument("--identity-dir", type=path, required=True, help="this node's certificate")
    parser.add_argument("--socket", type=path, required=True, help="where local root reaches it")
    parser.add_argument("--listen", default=f"0.0.0.0:{MANAGER_PORT}", help="ADDR:PORT (%(default)s)")
    parser.add_argument("--advertise", required=True, help="ADDR:PORT by which nodes reach it")
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="info", help="(%(default)s)"
    )
    parser.add_argument("--init", action="store_true", help="found a cluster where there is none")
    parser.add_argument("--node-name", default="", help="with --init: the hostname of this node")
    parser.add_argument(
        "--availability", choices=[each.name.lower() for each in Availability], default="active", help="with --init"
    )
    parser.add_argument("--spec-json", default="{}", help="with --init: how the cluster differs from the defaults")
    _add_store_flags(parser)
    wanted = parser.parse_args(argv)
    try:
        store = _store(wanted)
        founder = _founder(wanted) if wanted.init else None
    except InvalidArgument as error:
        # Its user typed none of these flags: a sentence without the usage.
        parser.exit(2, f"shoal-manager: {error}\n")
    return Settings(
        wanted.data_dir,
        wanted.identity_dir,
        wanted.socket,
        wanted.listen,
        wanted.advertise,
        wanted.log_level,
        founder,
        store,
    )


def _add_store_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", choices=("sqlite", "etcd"), default="sqlite", help="(%(default)s)")
    parser.add_argument("--etcd-endpoints", default="", help="HOST:PORT of each, with commas between them")
    parser.add_argument("--etcd-managed", action="store_true", help="managers run it; come in by the identity")
    parser.add_argument("--etcd-prefix", default=ETCD_PREFIX, help="all keys stand below it (%(default)s)")
    for name, what in _FILES.items():
        parser.add_argument(f"--etcd-{name.replace('_', '-')}", type=process.absolute, help=what)
    parser.add_argument("--etcd-user", default="", help="who comes in by password")


def _store(wanted: argparse.Namespace) -> StoreAccess:
    if wanted.store == "sqlite":
        return StoreAccess()
    endpoints = tuple(filter(None, wanted.etcd_endpoints.split(",")))
    if not endpoints:
        raise InvalidArgument("--store etcd needs --etcd-endpoints")
    texts = {}
    for name in _FILES:
        path: Path | None = getattr(wanted, f"etcd_{name}")
        try:
            texts[name] = path.read_text() if path else ""
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidArgument(f"{path} cannot be read: {error}") from error
    return StoreAccess(
        endpoints,
        wanted.etcd_managed,
        wanted.etcd_prefix,
        texts["ca"],
        texts["cert"],
        texts["key"],
        wanted.etcd_user,
        texts["password_file"].strip(),
    )


def _founder(wanted: argparse.Namespace) -> Founder:
    spec = _spec(wanted.spec_json)
    return Founder(wanted.node_name, Availability[wanted.availability.upper()], spec)


def _spec(text: str) -> ClusterSpec:
    """The defaults with what `text` says over them, by name."""
    known = msgspec.structs.asdict(defaults.CLUSTER)
    try:
        given = msgspec.json.decode(text, type=dict[str, int | str | bool])
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"invalid --spec-json: {error}") from error
    if unknown := given.keys() - known.keys():
        raise InvalidArgument(f"invalid --spec-json: a cluster has no {', '.join(sorted(unknown))}")
    try:
        spec = msgspec.convert([*{**known, **given}.values()], ClusterSpec)
    except msgspec.MsgspecError as error:
        raise InvalidArgument(f"invalid --spec-json: {error}") from error
    check(spec)
    return spec
