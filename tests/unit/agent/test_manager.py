"""The manager of a host as its agent sees it, behind a socket where one server follows another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest

from agent.manager import ManagerProcess
from agent.settings import ManagerSettings
from shoal.clock import SystemClock
from shoal.errors import Locked
from shoal.rpc import listen_locally, new_server
from shoal.settings import Paths
from shoal.v1 import control_pb2, control_pb2_grpc


class Control(control_pb2_grpc.ControlServiceServicer):
    """Answers so often that it is unavailable; then as it is told."""

    def __init__(self, unavailable: int, error: Exception | None = None) -> None:
        self.left = unavailable
        self.error = error

    async def GetCluster(self, _request: Any, context: Any) -> control_pb2.GetClusterResponse:
        if self.left:
            self.left -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "Socket closed")
        if self.error is not None:
            raise self.error
        return control_pb2.GetClusterResponse()


async def ready(folder: Path, control: Control) -> None:
    paths = Paths(data=folder / "data", run=folder / "run")
    paths.run.mkdir()
    server = new_server()
    control_pb2_grpc.add_ControlServiceServicer_to_server(control, server)
    listen_locally(server, paths.manager_socket)
    await server.start()
    manager = ManagerProcess(ManagerSettings("0.0.0.0:2377", "10.9.0.1:2377", "one"), paths, clock=SystemClock())
    try:
        await manager.ready()
    finally:
        await server.stop(0)


async def test_what_an_ending_server_leaves_unanswered_is_asked_of_the_next_one(tmp_path: Path) -> None:
    control = Control(3)
    await ready(tmp_path, control)
    assert control.left == 0


async def test_one_that_is_locked_says_so(tmp_path: Path) -> None:
    with pytest.raises(Locked):
        await ready(tmp_path, Control(1, Locked()))
