"""The event loop of commands: asyncio, imported as where Python has no TLS.

asyncio has streams with TLS, and imports OpenSSL for them: a seventh of what a short command costs. No command has use
for those, since TLS is gRPC's or ssh's; a module of a command that imports `ssl` itself still gets it.
"""

from __future__ import annotations

import sys


def prepare() -> None:
    """Import asyncio, unless it is there."""
    if "asyncio" in sys.modules or "ssl" in sys.modules:
        return
    sys.modules["ssl"] = None  # type: ignore[assignment]  # "do not look for it" (import system, sys.modules)
    try:
        import asyncio  # noqa: F401
    finally:
        del sys.modules["ssl"]
