"""`exec`: another process in a container that runs."""

from typing import Annotated

from cli.client import Client
from cli.command import Flags, argument, command, flag, switch
from cli.foreground import Manners, check_terminal, follow, let_go, window
from cli.parse import pair, process
from shoal.errors import StartFailed
from shoal.v1 import engine_pb2


class ExecFlags(Flags):
    """What `exec` adds to the container's own process."""

    detach: Annotated[bool, switch("-d", "--detach", help="Detached mode: run command in the background")] = False
    detach_keys: Annotated[str, flag("--detach-keys", help="Override the key sequence for detaching a container")] = ""
    env: Annotated[
        list[str], flag("-e", "--env", metavar="list", parse=pair.variable, help="Set environment variables")
    ] = []
    env_file: Annotated[
        list[str], flag("--env-file", metavar="list", help="Read in a file of environment variables")
    ] = []
    interactive: Annotated[bool, switch("-i", "--interactive", help="Keep STDIN open even if not attached")] = False
    privileged: Annotated[bool, switch("--privileged", help="Give extended privileges to the command")] = False
    tty: Annotated[bool, switch("-t", "--tty", help="Allocate a pseudo-TTY")] = False
    user: Annotated[str, flag("-u", "--user", help='Username or UID (format: "<name|uid>[:<group|gid>]")')] = ""
    workdir: Annotated[str, flag("-w", "--workdir", help="Working directory inside the container")] = ""


@command(
    "[OPTIONS] CONTAINER COMMAND [ARG...]",
    examples=["shoal exec -it web sh", "shoal exec -e LEVEL=debug web env", "shoal --node n2 exec web ls /"],
    interspersed=False,
)
async def execute(
    client: Client,
    flags: ExecFlags,
    container: Annotated[str, argument()],
    command: Annotated[list[str], argument()],
) -> int:
    """Execute a command in a running container"""
    if not flags.detach:
        check_terminal(stdin=flags.interactive, tty=flags.tty)
    variables = pair.environment(flags.env, flags.env_file, pair.own_environment())
    keys = process.detach_keys(flags.detach_keys)
    opening = engine_pb2.ExecOpen(
        container=container,
        argv=command,
        env=variables,
        workdir=flags.workdir,
        user=flags.user,
        tty=flags.tty,
        stdin=flags.interactive and not flags.detach,
        privileged=flags.privileged,
        detach=flags.detach,
        size=window() if flags.tty else None,
    )
    manners = Manners(
        stdin=opening.stdin,
        tty=flags.tty,
        proxy_signals=False,
        detach_keys=keys,
        until_started=flags.detach,
    )
    call = client.containers.ExecContainer()
    try:
        ended = await follow(call, engine_pb2.ExecContainerRequest(open=opening), manners)
    except StartFailed as error:
        if not flags.detach:  # docker: 126 and 127 are for who waits for the command
            error.exit_code = error.run_code
        raise
    if ended.code is None:
        return 0 if flags.detach else let_go()
    return ended.code
