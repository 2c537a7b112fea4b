"""`create`, `stop`, `restart`, `pause`, `kill`, `rm`, `wait`: verbs that change a container and do not stay with it."""

import contextlib
import errno
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated

from cli.client import Client
from cli.command import Arguments, Flags, argument, command, flag, switch
from cli.container.flags import ContainerFlags
from cli.container.request import create_request
from cli.distribution import pull_first, with_tag
from cli.parse.number import integer32
from shoal.errors import Conflict, InvalidArgument, NotFound, ShoalError
from shoal.v1 import engine_pb2

# What the agent says when there is none, or none for this platform.
_NO_IMAGE = ("No such image", "image with reference")
# docker's `run` tells by these of every errno that it hears of, be it a command's or not.
_RUN_CODES = {errno.ENOENT: 127, errno.EACCES: 126, errno.EISDIR: 126}
_NOT_RUNNING = engine_pb2.WAIT_CONDITION_NOT_RUNNING


@command(
    "[OPTIONS] IMAGE [COMMAND] [ARG...]",
    examples=["shoal create --name web -p 8080:80 web:1", "shoal start web"],
    interspersed=False,
)
async def create(
    client: Client,
    flags: ContainerFlags,
    image: Annotated[str, argument()],
    args: Annotated[list[str], argument()] = [],  # noqa: B006
) -> None:
    """Create a new container, without starting it"""
    try:
        request = create_request(flags, image, args)
    except InvalidArgument as error:
        error.exit_code = error.run_code  # docker's client looks at these flags together, before it calls
        raise
    print(await make(client, flags, request))


async def make(client: Client, flags: ContainerFlags, request: engine_pb2.CreateContainerRequest) -> str:
    """The id of a new container; its image is pulled first when `--pull` says so or it is missing."""
    with _cidfile(flags.cidfile) as record:
        if flags.pull == "always":
            await pull_first(client, request.spec.image, quiet=flags.quiet, platform=flags.platform)
        try:
            answer = await client.containers.CreateContainer(request)
        except NotFound as error:
            if flags.pull != "missing" or not error.message.startswith(_NO_IMAGE):
                raise
            print(f"Unable to find image '{with_tag(request.spec.image)}' locally", file=sys.stderr)
            await pull_first(client, request.spec.image, quiet=flags.quiet, platform=flags.platform)
            answer = await client.containers.CreateContainer(request)
        record(answer.id)
    for warning in answer.warnings:
        print(f"WARNING: {warning}", file=sys.stderr)
    return answer.id


class StopFlags(Flags):
    """How a container is made to end."""

    timeout: Annotated[
        int | None,
        flag(
            "-t",
            "--timeout",
            "--time",
            metavar="int",
            parse=integer32,
            help="Seconds to wait before killing the container",
        ),
    ] = None
    signal: Annotated[str, flag("-s", "--signal", help="Signal to send to the container")] = ""


@command("[OPTIONS] CONTAINER [CONTAINER...]", examples=["shoal stop web", "shoal stop -t 1 web db"])
async def stop(
    client: Client,
    flags: StopFlags,
    containers: Arguments,
) -> int:
    """Stop one or more running containers"""

    async def one(container: str) -> None:
        request = engine_pb2.StopContainerRequest(container=container, timeout_s=flags.timeout, signal=flags.signal)
        await client.containers.StopContainer(request)

    return await each_in_turn(containers, one)


@command("[OPTIONS] CONTAINER [CONTAINER...]", examples=["shoal restart web", "shoal restart -t 1 web db"])
async def restart(
    client: Client,
    flags: StopFlags,
    containers: Arguments,
) -> int:
    """Restart one or more containers"""

    async def one(container: str) -> None:
        request = engine_pb2.RestartContainerRequest(container=container, timeout_s=flags.timeout, signal=flags.signal)
        await client.containers.RestartContainer(request)

    return await each_in_turn(containers, one)


@command("CONTAINER [CONTAINER...]", examples=["shoal pause web"])
async def pause(client: Client, containers: Arguments) -> int:
    """Pause all processes within one or more containers"""

    async def one(container: str) -> None:
        await client.containers.PauseContainer(engine_pb2.PauseContainerRequest(container=container))

    return await each_in_turn(containers, one)


@command("CONTAINER [CONTAINER...]", examples=["shoal unpause web"])
async def unpause(client: Client, containers: Arguments) -> int:
    """Unpause all processes within one or more containers"""

    async def one(container: str) -> None:
        await client.containers.UnpauseContainer(engine_pb2.UnpauseContainerRequest(container=container))

    return await each_in_turn(containers, one)


@command("[OPTIONS] CONTAINER [CONTAINER...]", examples=["shoal kill web", "shoal kill -s HUP web"])
async def kill(
    client: Client,
    containers: Arguments,
    signal: Annotated[str, flag("-s", "--signal", help="Signal to send to the container (default SIGKILL)")] = "",
) -> int:
    """Kill one or more running containers"""

    async def one(container: str) -> None:
        await client.containers.KillContainer(engine_pb2.KillContainerRequest(container=container, signal=signal))

    return await each_in_turn(containers, one)


@command("[OPTIONS] CONTAINER [CONTAINER...]", examples=["shoal rm web", "shoal rm -f $(shoal ps -aq)"])
async def remove(
    client: Client,
    containers: Arguments,
    force: Annotated[
        bool, switch("-f", "--force", help="Force the removal of a running container (uses SIGKILL)")
    ] = False,
    volumes: Annotated[
        bool, switch("-v", "--volumes", help="Remove anonymous volumes associated with the container")
    ] = False,
) -> int:
    """Remove one or more containers"""

    async def one(container: str) -> None:
        request = engine_pb2.RemoveContainerRequest(container=container, force=force, volumes=volumes)
        await client.containers.RemoveContainer(request)

    return await each_in_turn(containers, one, missing_is_fine=force)


@command("CONTAINER [CONTAINER...]", examples=["shoal wait job"])
async def wait(client: Client, containers: Arguments) -> int:
    """Block until one or more containers stop, then print their exit codes"""
    failed = 0
    for container in containers:
        try:
            request = engine_pb2.WaitContainerRequest(container=container, condition=_NOT_RUNNING)
            answer = await client.containers.WaitContainer(request)
        except ShoalError as error:
            failed = complain(error)
            continue
        print(answer.exit_code)
        if answer.error:
            print(f"Error: {answer.error}", file=sys.stderr)
    return failed


async def each_in_turn(
    names: Sequence[str], act: Callable[[str], Awaitable[None]], *, missing_is_fine: bool = False
) -> int:
    """Do `act` to each and print its name; what fails is told and does not keep the others. The exit code.

    What was never there may be fine; what is named twice, and gone by the second time, is not."""
    failed = 0
    done: set[str] = set()
    for name in names:
        try:
            await act(name)
        except ShoalError as error:
            code = complain(error)
            failed = failed if missing_is_fine and isinstance(error, NotFound) and name not in done else code
            continue
        done.add(name)
        print(name)
    return failed


def complain(error: ShoalError) -> int:
    """Tell of one failure among several; the exit code of the whole."""
    print(f"Error: {error}", file=sys.stderr)
    return 1


@contextlib.contextmanager
def _cidfile(path: str) -> Iterator[Callable[[str], None]]:
    """A file that gets the id, and goes again when there comes to be none."""
    if not path:
        yield lambda _: None
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except OSError as error:
        if isinstance(error, FileExistsError) or (isinstance(error, IsADirectoryError) and Path(path).is_dir()):
            raise Conflict(
                f"container ID file found, make sure the other container isn't running or delete {path}"
            ) from error
        failure = Conflict(f"failed to create the container ID file {path}: {error.strerror}")
        failure.run_code = _RUN_CODES.get(error.errno or 0, failure.run_code)
        raise failure from error

    def record(made: str) -> None:
        os.write(descriptor, made.encode())

    try:
        yield record
    finally:
        empty = os.fstat(descriptor).st_size == 0
        os.close(descriptor)
        if empty:
            Path(path).unlink(missing_ok=True)
