"""Commands that keep a registry's credentials: `login`, `logout`. The daemon asks the registry; what it took is written
where docker keeps it (`credentials`)."""

import getpass
import sys
from typing import Annotated

from cli import credentials, dockerconfig
from cli.client import Client
from cli.command import argument, command, flag, switch
from cli.credentials import Credentials
from shoal.errors import ShoalError
from shoal.v1 import engine_pb2

_NO_TTY = "Cannot perform an interactive login from a non TTY device"


@command(
    "[OPTIONS] [SERVER]", examples=["shoal login registry.local:5000", "shoal login -u me --password-stdin < file"]
)
async def login(
    client: Client,
    server: Annotated[str, argument()] = "",
    password: Annotated[str, flag("-p", "--password", help="Password or Personal Access Token (PAT)")] = "",
    password_stdin: Annotated[
        bool, switch("--password-stdin", help="Take the Password or Personal Access Token (PAT) from stdin")
    ] = False,
    username: Annotated[str, flag("-u", "--username", help="Username")] = "",
) -> None:
    """Authenticate to a registry"""
    if password and password_stdin:
        raise ShoalError("conflicting options: cannot specify both --password and --password-stdin")
    if password:
        _say("WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
    if password_stdin and not username:
        raise ShoalError("the --password-stdin option requires --username to be set")
    registry = credentials.host_of(server)
    if password_stdin:
        password = sys.stdin.read().removesuffix("\n").removesuffix("\r")
    wanted = Credentials(username, password)
    if not username and not password and (held := credentials.known(registry)).username:
        whose = "" if held.username == credentials.TOKEN_USER else f" [Username: {held.username}]"
        _say(
            f"Authenticating with existing credentials...{whose}\n\n"
            " Info -> To login with a different account, run 'shoal logout' followed by 'shoal login'\n\n"
        )
        wanted = held
    elif not username or not password:
        wanted = _asked(username, password)
    request = engine_pb2.CheckLoginRequest(registry=registry, credentials=wanted.message())
    answer = await client.images.CheckLogin(request)
    if wanted.username != credentials.TOKEN_USER:
        before = credentials.known(registry)
        plain = credentials.keep(registry, wanted.username, wanted.password, identity_token=answer.identity_token)
        if plain and before != wanted:
            _say(
                f"\nWARNING! Your credentials are stored unencrypted in '{dockerconfig.path()}'.\n"
                "Configure a credential helper to remove this warning. See\n"
                "https://docs.docker.com/go/credential-store/\n"
            )
    print("Login Succeeded")


@command("[SERVER]", examples=["shoal logout registry.local:5000"])
def logout(server: Annotated[str, argument()] = "") -> None:
    """Log out from a registry"""
    registry = credentials.host_of(server)
    print(f"Removing login credentials for {credentials.server_of(registry)}")
    credentials.forget(registry)


def _asked(username: str, password: str) -> Credentials:
    """What the person at the terminal says."""
    if not sys.stdin.isatty():
        raise ShoalError(_NO_TTY)
    username = username or input("Username: ").strip()
    if not username:
        raise ShoalError("Error: Non-null Username Required")
    password = password or getpass.getpass("Password: ")
    if not password:
        raise ShoalError("Error: Password Required")
    return Credentials(username, password)


def _say(text: str) -> None:
    print(text, file=sys.stderr)
