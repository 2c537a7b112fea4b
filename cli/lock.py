"""Commands on a manager's lock: unlock it after a restart, see and rotate the key that does."""

import getpass
import sys
from typing import Annotated

from cli.client import Client
from cli.command import command, switch
from shoal.errors import InvalidArgument
from shoal.v1 import control_pb2, swarm_pb2

LOCKED = "The manager waits for its unlock key: run 'shoal swarm unlock' on this host."


@command("", examples=["shoal swarm unlock", "shoal swarm unlock < key"])
async def unlock(client: Client) -> None:
    """Unlock the manager of this host"""
    key = getpass.getpass("Enter unlock key: ") if sys.stdin.isatty() else sys.stdin.readline()
    if not key.strip():
        raise InvalidArgument("no unlock key was given", hint="'shoal swarm unlock-key' on another manager prints it")
    await client.swarm.UnlockSwarm(swarm_pb2.UnlockSwarmRequest(key=key.strip()))


@command("[OPTIONS]", examples=["shoal swarm unlock-key -q", "shoal swarm unlock-key --rotate"])
async def unlock_key(
    client: Client,
    rotate: Annotated[bool, switch("--rotate", help="Rotate unlock key")] = False,
    quiet: Annotated[bool, switch("-q", "--quiet", help="Only display token")] = False,
) -> None:
    """Print what unlocks a manager, or rotate it"""
    key = (await client.control.GetUnlockKey(control_pb2.GetUnlockKeyRequest(rotate=rotate))).key
    if quiet:
        print(key)
        return
    if rotate:
        print("Successfully rotated manager unlock key.\n")
    print(how_to_unlock(key))


def how_to_unlock(key: str) -> str:
    return (
        "To unlock a swarm manager after it restarts, run the `shoal swarm unlock`\n"
        f"command and provide the following key:\n\n    {key}\n\n"
        "Please remember to store this key in a password manager, since without it you\n"
        "will not be able to restart the manager."
    )
