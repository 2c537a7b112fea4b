"""The reception: takes the connections that come to the keeper, and gives each to whom it is for.

A connection's first frame says what it is (`wire`): one for numbered orders, which are answered here with what
`keeper` says, or one process's stream, which is handed over as it is.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any

from agent.runtime import wire
from agent.runtime.connection import Connection, error_message
from agent.runtime.container import Reply
from agent.runtime.loop import IN, Loop

Order = Callable[[dict[str, Any], Reply], None]  # what is asked, with "text" as it came
Open = Callable[[Connection, dict[str, Any]], None]  # likewise


class Reception:
    """Owned by the loop's thread. `orders` and `streams` by the names that they have on the wire."""

    def __init__(self, loop: Loop, orders: Mapping[str, Order], streams: Mapping[str, Open]) -> None:
        self._loop = loop
        self._orders = orders
        self._streams = streams

    def open(self, listener: socket.socket) -> None:
        self._loop.watch(listener.fileno(), IN, lambda _: self._accept(listener))

    def _accept(self, listener: socket.socket) -> None:
        connected, _ = listener.accept()
        Connection(self._loop, connected, self._first)

    def _first(self, connection: Connection, kind: int, payload: bytes) -> None:
        if kind != wire.JSON:
            connection.close()
            return
        request = _request(payload)
        if request["op"] == "control":
            connection.on_frame = lambda kind, payload: self._order(connection, kind, payload)
        elif opened := self._streams.get(request["op"]):
            try:
                opened(connection, request)
            except Exception as error:  # the boundary, as of an order
                connection.send(wire.message(error_message(0, error)))
                connection.close_when_sent()
        else:
            connection.close()

    def _order(self, connection: Connection, kind: int, payload: bytes) -> None:
        if kind != wire.JSON:
            connection.close()
            return
        request = _request(payload)

        def reply(result: Any, error: BaseException | None = None) -> None:
            if error is not None:
                connection.send(wire.message(error_message(request["seq"], error)))
            else:
                connection.send(wire.message({"seq": request["seq"], "result": result}))

        try:
            self._orders[request["op"]](request, reply)
        except Exception as error:  # the boundary: a bad request is answered, not fatal
            reply(None, error)


def _request(payload: bytes) -> dict[str, Any]:
    request = wire.value(payload)
    request["text"] = payload
    return request
