"""Commands on the cluster's root: showing it, and following how nodes move to another."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, NamedTuple

from cli.client import Client
from cli.command import command, flag, switch
from shoal.duration import duration
from shoal.errors import InvalidArgument, Unavailable
from shoal.v1 import control_pb2

_HOUR_NS = 3600 * 10**9
_LOOK_S = 0.5
_PATIENCE_S = 60.0


class Progress(NamedTuple):
    """Where a rotation stands. `waiting` are the hostnames of nodes that have not moved."""

    moved: int
    waiting: tuple[str, ...]
    over: bool


@command(
    "[OPTIONS]",
    examples=[
        "shoal swarm ca > root.pem",
        "shoal swarm ca --rotate",
        "shoal swarm ca --rotate --deadline 24h --detach",
        "shoal swarm ca --rotate --ca-cert root.pem --ca-key root.key",
    ],
)
async def ca(
    client: Client,
    rotate: Annotated[bool, switch("--rotate", help="Replace the root CA; join tokens change with it")] = False,
    ca_cert: Annotated[str, flag("--ca-cert", help="Path to the PEM-formatted root CA certificate to use")] = "",
    ca_key: Annotated[str, flag("--ca-key", help="Path to the PEM-formatted root CA key to use")] = "",
    cert_expiry: Annotated[
        int | None,
        flag("--cert-expiry", metavar="duration", parse=duration, help="Validity period for node certificates"),
    ] = None,
    deadline: Annotated[
        int | None,
        flag(
            "--deadline",
            metavar="duration",
            parse=duration,
            help="When the old root goes, whichever nodes have not moved (default 1h0m0s)",
        ),
    ] = None,
    wait: Annotated[bool, switch("--wait", help="Follow a rotation that is under way")] = False,
    detach: Annotated[
        bool, switch("-d", "--detach", help="Exit immediately instead of waiting for the root rotation to converge")
    ] = False,
    quiet: Annotated[bool, switch("-q", "--quiet", help="Suppress progress output")] = False,
) -> None:
    """Display and rotate the root CA

    While it is rotated, both roots are trusted, and nodes get certificates of the new one. A node that is not there
    until the deadline comes back by its old key later.
    """
    if not rotate and (ca_cert or ca_key or cert_expiry is not None or deadline is not None or detach):
        raise InvalidArgument("--ca-cert, --ca-key, --cert-expiry, --deadline and --detach go with --rotate")
    if bool(ca_cert) != bool(ca_key):
        raise InvalidArgument("--ca-cert and --ca-key go together", hint="external CAs are not supported")
    if rotate:
        await _begin(client, ca_cert, ca_key, cert_expiry, _HOUR_NS if deadline is None else deadline)
        if detach:
            return
    if rotate or wait:
        await _follow(client, quiet=quiet)
    print((await client.control.GetCluster(control_pb2.GetClusterRequest())).cluster.root_ca_pem, end="")


async def _begin(client: Client, ca_cert: str, ca_key: str, cert_expiry: int | None, within_ns: int) -> None:
    if cert_expiry is not None:
        cluster = (await client.control.GetCluster(control_pb2.GetClusterRequest())).cluster
        cluster.spec.certificate_life_ns = cert_expiry
        request = control_pb2.UpdateClusterRequest(version=cluster.meta.version, spec=cluster.spec)
        await client.control.UpdateCluster(request)
    await client.control.RotateRoot(
        control_pb2.RotateRootRequest(root_ca_pem=_text(ca_cert), ca_key_pem=_text(ca_key), within_ns=within_ns)
    )


async def _follow(client: Client, *, quiet: bool) -> None:
    """Tell of every step, until the end; and who was left behind."""
    last = Progress(-1, (), over=False)
    async for step in _steps(client):
        if not quiet and step[:2] != last[:2]:
            waiting = f", waiting for {_names(step.waiting)}" if step.waiting else ""
            print(f"{step.moved} of {step.moved + len(step.waiting)} nodes have moved{waiting}")
        last = step
    if quiet:
        return
    print("The old root is not trusted any more; join tokens have changed.")
    if last.waiting:
        print(
            f"Left behind: {_names(last.waiting)}. They come back by their old keys once they run; after the grace of "
            "certificates they have to leave and join again."
        )


async def _steps(client: Client) -> AsyncIterator[Progress]:
    """Where it stands, now and then, until it is over. A manager that is away for a moment is no end."""
    wanted = ""
    failures = 0
    while True:
        try:
            cluster = (await client.control.GetCluster(control_pb2.GetClusterRequest())).cluster
            nodes = (await client.control.ListNodes(control_pb2.ListNodesRequest())).nodes
        except Unavailable:
            failures += 1
            if failures * _LOOK_S > _PATIENCE_S:
                raise
            await asyncio.sleep(_LOOK_S)
            continue
        failures = 0
        over = not cluster.HasField("rotation")
        wanted = wanted if over else _key_of(cluster.rotation.root_ca_pem)
        wanted = wanted or _key_of(cluster.root_ca_pem)
        views = [each.node.description for each in nodes]
        waiting = sorted(each.hostname for each in views if each.certificate.issuer_key != wanted)
        yield Progress(len(views) - len(waiting), tuple(waiting), over)
        if over:
            return
        await asyncio.sleep(_LOOK_S)


def _key_of(root_ca_pem: str) -> str:
    from shoal.tls import root_key_of  # cryptography: 60 ms that showing the root does not owe

    return root_key_of(root_ca_pem)


def _names(hostnames: tuple[str, ...]) -> str:
    more = len(hostnames) - 10
    return ", ".join(hostnames[:10]) + (f" and {more} more" if more > 0 else "")


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8") if path else ""
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{path} cannot be read: {error}") from error
