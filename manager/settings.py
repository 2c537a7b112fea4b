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
from shoal.model.cluster import ClusterSpec
from shoal.model.node import Availability
from shoal.settings import MANAGER_PORT


class Settings(msgspec.Struct, frozen=True):
    """What the command line says. `founder` is there with --init."""

    data_dir: Path
    identity_dir: Path
    socket: Path
    listen: str
    advertise: str
    log_level: str
    founder: Founder | None


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
    wanted = parser.parse_args(argv)
    founder = None
    if wanted.init:
        try:
            spec = _spec(wanted.spec_json)
        except InvalidArgument as error:
            # Its user typed none of these flags: a sentence without the usage.
            parser.exit(2, f"shoal-manager: {error}\n")
        founder = Founder(wanted.node_name, Availability[wanted.availability.upper()], spec)
    return Settings(
        wanted.data_dir,
        wanted.identity_dir,
        wanted.socket,
        wanted.listen,
        wanted.advertise,
        wanted.log_level,
        founder,
    )


def _spec(text: str) -> ClusterSpec:
    """The defaults with what `text` says over them, by name."""
    known = msgspec.structs.asdict(defaults.CLUSTER)
    try:
        given = msgspec.json.decode(text, type=dict[str, int | str])
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
