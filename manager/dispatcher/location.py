"""Location: where a node gets an image that it lacks: from nodes that hold it (`holders`), or, when nobody does, from
the registry, for which one of those that need it is sent (`errand`), with the credentials of the service whose task
needs it. No other node ever hears these, and they are on no node's disk.
"""

from __future__ import annotations

from collections.abc import Callable

from manager.dispatcher.errand import Errands, image_of
from manager.dispatcher.holders import Holders
from manager.store.view import View
from shoal.errors import PermissionDenied, Unavailable
from shoal.model.login import Login
from shoal.model.node import NodeState
from shoal.settings import AGENT_PORT
from shoal.v1 import dispatcher_pb2 as wire
from shoal.v1 import types_pb2

OpenLogin = Callable[[Login], tuple[str, str]]


class Location:
    """`open_login` gives the user name and password in a record."""

    def __init__(self, view: View, holders: Holders, errands: Errands, *, open_login: OpenLogin) -> None:
        self._view = view
        self._holders = holders
        self._errands = errands
        self._open_login = open_login

    async def answer(self, node_id: str, request: wire.LocateImageRequest) -> wire.LocateImageResponse:
        """What the node `node_id` hears. Raises Unavailable where nobody can say, for who may not be sent."""
        if request.service_id and not self._runs(node_id, request.service_id):
            raise PermissionDenied(f"no task of service {request.service_id} is on node {node_id}")
        if request.failed:
            self._errands.end(image_of(request.reference, request.manifest_digest), node_id)
            return wire.LocateImageResponse()
        coming = False
        try:
            coming, sources = await self._sources(request)
            doubt = ""
        except Unavailable as error:
            if not request.service_id:
                raise
            sources, doubt = [], str(error)
        if sources or not request.service_id:
            return wire.LocateImageResponse(sources=sources)
        if coming or not self._errands.go(image_of(request.reference, request.manifest_digest), node_id):
            return wire.LocateImageResponse(coming=True, doubt=doubt)
        return wire.LocateImageResponse(bring=True, credentials=self._login(request.service_id), doubt=doubt)

    async def _sources(self, request: wire.LocateImageRequest) -> tuple[bool, list[wire.ImageSource]]:
        """Whether another manager's node is on the way, and who has it."""
        found = await self._holders.locate_surely(request.reference, request.manifest_digest)
        sources = []
        for holder, digest in found.holders:
            node = self._view.nodes.get(holder)
            if node is not None and node.status.state is NodeState.READY and node.description.address:
                address = f"{node.description.address}:{AGENT_PORT}"
                sources.append(wire.ImageSource(node_id=holder, address=address, manifest_digest=digest))
        if found.holders and not sources:
            raise Unavailable("the nodes that have it are away")
        return found.coming, sources

    def _runs(self, node_id: str, service_id: str) -> bool:
        """Whether a task of the service is on the node."""
        tasks = self._view.tasks_of_node(node_id)
        return any(task.service_id == service_id and not task.finished for task in tasks)

    def _login(self, service_id: str) -> types_pb2.RegistryCredentials | None:
        login = self._view.logins.get(service_id)
        if login is None:
            return None
        username, password = self._open_login(login)
        return types_pb2.RegistryCredentials(username=username, password=password)
