"""Exec: one more process in a running container: what is asked for, and the OCI process it comes to. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Sequence
from typing import Any

import msgspec

from agent.container.bundle import environment, process
from agent.container.capability import capabilities
from agent.container.user import User
from shoal.errors import InvalidArgument
from shoal.model.container import Container


class ExecRequest(msgspec.Struct, frozen=True):
    """Empty `user` and `workdir` mean the container's own; `env` goes over the container's. By its `id` people know it;
    a health check has none."""

    argv: tuple[str, ...]
    id: str = ""
    env: tuple[str, ...] = ()
    workdir: str = ""
    user: str = ""
    tty: bool = False
    stdin: bool = False
    privileged: bool = False
    rows: int = 0
    columns: int = 0


def exec_process(
    request: ExecRequest,
    container: Container,
    *,
    user: User,
    hostname: str,
    available: Collection[str],
    linked: Sequence[str] = (),
) -> dict[str, Any]:
    """Raises InvalidArgument for a folder, an argument or a variable that cannot be."""
    if request.workdir and not request.workdir.startswith("/"):
        raise InvalidArgument(f"Cwd must be an absolute path: {request.workdir}")
    if any("\0" in each for each in (*request.argv, *request.env)):
        raise InvalidArgument("an argument or variable of the command contains a NUL byte")
    spec = container.spec
    granted = capabilities(
        privileged=spec.privileged or request.privileged, add=spec.cap_add, drop=spec.cap_drop, available=available
    )
    return process(
        argv=request.argv,
        env=environment(
            container, hostname=hostname, home=user.home, tty=request.tty, linked=linked, extra=request.env
        ),
        cwd=posixpath.normpath(request.workdir or container.workdir),
        user=user,
        granted=granted,
        tty=request.tty,
        size=(request.rows, request.columns),
        no_new_privileges=spec.no_new_privileges,
    )
