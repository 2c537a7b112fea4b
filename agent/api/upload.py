"""What a client sends before it hears anything: an archive, a root file system."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from shoal.errors import ShoalError

_PATIENCE_S = 10.0


@contextlib.asynccontextmanager
async def heard_out(requests: AsyncIterator[Any]) -> AsyncIterator[None]:
    """When the block fails, what the client is still sending is read, for a while, before it is told: a client of
    Python's gRPC that writes when the refusal comes loses it ("Internal error from Core", grpc#36066)."""
    try:
        yield
    except ShoalError:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                async for _ in requests:
                    pass
        raise
