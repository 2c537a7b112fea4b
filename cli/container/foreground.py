"""`run`, `start`, `attach`: verbs that may stay with the container, and then end with its exit code."""

from collections.abc import Sequence
from typing import Annotated

from cli.client import Client
from cli.command import Arguments, Flags, argument, command, flag, switch
from cli.container.flags import ContainerFlags
from cli.container.lifecycle import complain, each_in_turn, make
from cli.container.request import create_request
from cli.foreground import Ended, Manners, check_terminal, follow, let_go, window
from cli.grammar import beforehand
from cli.parse import process
from shoal.errors import Conflict, ShoalError
from shoal.v1 import engine_pb2
from shoal.v1.types_pb2 import CONTAINER_STATE_PAUSED, CONTAINER_STATE_RUNNING, Container

_SHOWN = ("stdout", "stderr")


class ForegroundFlags(Flags):
    """How the terminal behaves while it stays."""

    detach_keys: Annotated[str, flag("--detach-keys", help="Override the key sequence for detaching a container")] = ""
    sig_proxy: Annotated[
        bool, switch("--sig-proxy", negative="--no-sig-proxy", help="Proxy received signals to the process")
    ] = True


@command(
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    examples=[
        "shoal run -it --rm busybox sh",
        "shoal run -d --name web -p 8080:80 --restart always web:1",
        "shoal run --rm -v $PWD:/work -w /work busybox ls",
    ],
    interspersed=False,
    runs=True,
)
async def run(
    client: Client,
    flags: ContainerFlags,
    manners: ForegroundFlags,
    image: Annotated[str, argument()],
    args: Annotated[list[str], argument()] = [],  # noqa: B006
    detach: Annotated[
        bool, switch("-d", "--detach", help="Run container in background and print container ID")
    ] = False,
) -> int:
    """Create and run a new container from an image"""
    attach = flags.attach
    with beforehand():
        if attach and detach:
            raise Conflict("conflicting options: cannot specify both --attach and --detach")
        if not detach:
            check_terminal(stdin=flags.interactive, tty=flags.tty)
            foreground = _manners(manners, stdin=flags.interactive, tty=flags.tty)
    made = await make(client, flags, create_request(flags, image, args, detached=detach))
    if detach:
        print(made, flush=True)  # also of one that does not start: it is there, to look at and to remove
        await client.containers.StartContainer(engine_pb2.StartContainerRequest(container=made))
        return 0
    if attach and not {"stdout", "stderr"} & set(attach):
        print(made, flush=True)
    return _code(await attached(client, made, foreground, start=True, streams=attach or _SHOWN))


@command("[OPTIONS] CONTAINER [CONTAINER...]", examples=["shoal start web", "shoal start -ai shell"])
async def start(
    client: Client,
    manners: ForegroundFlags,
    containers: Arguments,
    attach: Annotated[bool, switch("-a", "--attach", help="Attach STDOUT/STDERR and forward signals")] = False,
    interactive: Annotated[bool, switch("-i", "--interactive", help="Attach container's STDIN")] = False,
) -> int:
    """Start one or more stopped containers"""
    if attach or interactive:
        if len(containers) > 1:
            raise Conflict("you cannot start and attach multiple containers at once")
        spec = (await _get(client, containers[0])).spec
        stdin = interactive and spec.open_stdin
        check_terminal(stdin=stdin, tty=spec.tty)
        return _code(await attached(client, containers[0], _manners(manners, stdin=stdin, tty=spec.tty), start=True))

    async def one(container: str) -> None:
        await client.containers.StartContainer(engine_pb2.StartContainerRequest(container=container))

    failed = []

    async def one_of_many(container: str) -> None:
        try:
            await one(container)
        except ShoalError:
            failed.append(container)
            raise

    code = await each_in_turn(containers, one_of_many)
    if failed:
        complain(ShoalError(f"failed to start containers: {', '.join(failed)}"))
    return code


@command("[OPTIONS] CONTAINER", examples=["shoal attach shell        (ctrl-p ctrl-q leaves it running)"])
async def attach(
    client: Client,
    manners: ForegroundFlags,
    container: Annotated[str, argument()],
    no_stdin: Annotated[bool, switch("--no-stdin", help="Do not attach STDIN")] = False,
) -> int:
    """Attach local standard input, output, and error streams to a running container"""
    found = await _get(client, container)
    if found.status.state == CONTAINER_STATE_PAUSED:
        raise Conflict("You cannot attach to a paused container, unpause it first")
    if found.status.state != CONTAINER_STATE_RUNNING:
        raise Conflict("You cannot attach to a stopped container, start it first")
    stdin = found.spec.open_stdin and not no_stdin
    check_terminal(stdin=stdin, tty=found.spec.tty)
    ended = await attached(client, container, _manners(manners, stdin=stdin, tty=found.spec.tty), start=False)
    return let_go() if ended.code is None else ended.code


async def attached(
    client: Client, container: str, manners: Manners, *, start: bool, streams: Sequence[str] = _SHOWN
) -> Ended:
    """A container in the foreground, until it ends or the user lets go."""
    opening = engine_pb2.AttachOpen(
        container=container,
        stdin=manners.stdin,
        stdout="stdout" in streams,
        stderr="stderr" in streams,
        silent="stdout" not in streams and "stderr" not in streams,
        start=start,
        size=window() if manners.tty else None,
    )
    call = client.containers.AttachContainer()
    return await follow(call, engine_pb2.AttachContainerRequest(open=opening), manners)


def _manners(flags: ForegroundFlags, *, stdin: bool, tty: bool) -> Manners:
    keys = process.detach_keys(flags.detach_keys)
    return Manners(stdin=stdin, tty=tty, proxy_signals=flags.sig_proxy, detach_keys=keys)


def _code(ended: Ended) -> int:
    """Who lets go of what it started itself did what was to be done."""
    return ended.code or 0


async def _get(client: Client, container: str) -> Container:
    answer = await client.containers.GetContainer(engine_pb2.GetContainerRequest(container=container))
    return answer.container
