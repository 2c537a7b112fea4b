"""`--debug-shell`: a look at where a build failed."""

from __future__ import annotations

import sys

from cli.client import Client
from cli.container.foreground import attached
from cli.foreground import Manners
from cli.terminal import STDIN, STDOUT, is_terminal
from shoal.errors import NotFound
from shoal.v1 import engine_pb2
from shoal.v1.types_pb2 import ContainerSpec


async def look_into(client: Client, image_id: str) -> None:
    """A shell in the image that a failed command left, which goes with it."""
    tty = is_terminal(STDIN) and is_terminal(STDOUT)
    spec = ContainerSpec(image=image_id, tty=tty, open_stdin=True)
    request = engine_pb2.CreateContainerRequest(spec=spec, auto_remove=True)
    try:
        made = await client.containers.CreateContainer(request)
        print("The step failed; this shell is where it did. It goes when you leave.", file=sys.stderr)
        await attached(client, made.id, Manners(stdin=True, tty=tty), start=True)
        await client.containers.WaitContainer(
            engine_pb2.WaitContainerRequest(container=made.id, condition=engine_pb2.WAIT_CONDITION_REMOVED)
        )
    except NotFound:  # it went before it could be waited for
        return
    finally:
        await client.images.RemoveImage(engine_pb2.RemoveImageRequest(reference=image_id, force=True))
