"""Login: whether a registry takes somebody's credentials."""

from __future__ import annotations

from agent.registry.auth import Credentials
from agent.registry.connection import Connection
from agent.registry.rules import Rules


async def check(registry: str, credentials: Credentials, rules: Rules) -> str:
    """The identity token that replaces the password from now on, "" where the registry gives none.

    Raises PermissionDenied in docker's words where it refuses, Unavailable where it cannot be reached.
    """
    async with Connection(registry, rules=rules, credentials=credentials) as connection:
        return await connection.prove()
