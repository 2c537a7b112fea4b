"""The resolver: a process of its own that answers DNS on the gateway address of every network with names.

    python -I -S -E resolver.py FOLDER RESOLV_CONF VERSION < LISTENING-UNIX-SOCKET

Apart from the agent, so that names go on resolving whatever happens to that. FOLDER holds one zone file per
gateway ("10.0.1.65.json"), replaced atomically by the agent; the file's identity is looked at before every answer,
so a name is known from the moment its file is there, and nobody needs to be told. Only a gateway that comes or
goes needs a word over the control socket (standard input):

    hello → {"version", "pid"}      reload → {"failed": {gateway: why}}      stop → ends

It ends by itself when no gateway is left, or the folder is gone. Standard library and siblings only; UDP in one
loop, the few TCP connections in threads. What it cannot understand it does not answer; what it does not know it asks
the host's nameservers, each question from a port of its own with an id of its own, so that a forged answer has to
guess both.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import selectors
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

if not __package__:  # run as a program: its siblings are found from where it stands
    sys.path[:0] = [str(Path(__file__).resolve().parents[3])]

from agent.network.dns import message, zone
from agent.network.dns.message import Query
from agent.network.dns.source import PORT, UPSTREAM_TIMEOUT_S, Upstreams, Zones, connect

MOST_PENDING = 512
MOST_CONNECTIONS = 32
IDLE_TIMEOUT_S = 5.0
LOOK_AGAIN_S = 5.0
_IP_FREEBIND = 15


class Forwarded:
    """A question on its way: who asked it over which socket, and which servers are left to ask."""

    def __init__(self, reply: Callable[[bytes], None], query: Query, data: bytes, servers: list[str]) -> None:
        self.reply = reply
        self.query = query
        self.data = message.with_id(data, random.getrandbits(16))
        self.servers = servers
        self.deadline = 0.0


class Resolver:
    def __init__(self, folder: Path, resolv_conf: Path, version: str, control: socket.socket) -> None:
        self._zones = Zones(folder)
        self._upstreams = Upstreams(resolv_conf)
        self._version = version
        self._selector = selectors.DefaultSelector()
        self._listening: dict[str, tuple[socket.socket, socket.socket]] = {}
        self._pending: dict[socket.socket, Forwarded] = {}
        self._connections = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self._running = True
        control.setblocking(False)
        self._selector.register(control, selectors.EVENT_READ, lambda: self._accept_control(control))

    def run(self) -> None:
        """Until told to stop, or until there is nothing to answer for."""
        look = 0.0
        while self._running:
            now = time.monotonic()
            if now >= look:
                self._reload()
                look = now + LOOK_AGAIN_S
            wait = min([look, *(each.deadline for each in self._pending.values())]) - now
            for key, _ in self._selector.select(max(0.0, wait)):
                try:
                    key.data()
                except Exception:
                    traceback.print_exc()  # one asker's trouble is not the others'
            self._give_up(time.monotonic())

    # -- which gateways ---------------------------------------------------------------------------

    def _reload(self) -> dict[str, str]:
        """Listen on exactly the gateways that have a zone; why not, by gateway, for those where that failed."""
        try:
            wanted = self._zones.gateways()
        except OSError:
            wanted = set()
        for gateway in self._listening.keys() - wanted:
            for each in self._listening.pop(gateway):
                self._forget(each)
        failed = {}
        for gateway in wanted - self._listening.keys():
            try:
                self._listen(gateway)
            except OSError as error:
                failed[gateway] = error.strerror or str(error)
        self._running = self._running and bool(wanted)
        return failed

    def _listen(self, gateway: str) -> None:
        with contextlib.ExitStack() as undo:
            sockets = []
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                each = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)
                undo.callback(each.close)
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                each.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)
                each.bind((gateway, PORT))
                sockets.append(each)
            datagrams, streams = sockets
            streams.listen(64)
            undo.pop_all()
        self._selector.register(datagrams, selectors.EVENT_READ, lambda: self._datagrams(datagrams, gateway))
        self._selector.register(streams, selectors.EVENT_READ, lambda: self._accept(streams, gateway))
        self._listening[gateway] = (datagrams, streams)

    def _forget(self, each: socket.socket) -> None:
        self._selector.unregister(each)
        each.close()

    # -- control ----------------------------------------------------------------------------------

    def _accept_control(self, control: socket.socket) -> None:
        connection, _ = control.accept()
        connection.setblocking(False)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._control(connection))

    def _control(self, connection: socket.socket) -> None:
        try:
            words = connection.recv(4096).split()
        except OSError:
            words = []
        if not words:
            self._forget(connection)
        for word in words:
            reply: dict[str, object] = {}
            if word == b"hello":
                reply = {"version": self._version, "pid": os.getpid()}
            elif word == b"reload":
                reply = {"failed": self._reload()}
            elif word == b"stop":
                self._running = False
            with contextlib.suppress(OSError):
                connection.send(json.dumps(reply).encode() + b"\n")

    # -- questions over UDP -----------------------------------------------------------------------

    def _datagrams(self, datagrams: socket.socket, gateway: str) -> None:
        """Answer what is waiting, but not without end: others have sockets too."""
        for _ in range(64):
            try:
                data, asker = datagrams.recvfrom(4096)
            except OSError:
                return

            def reply(answer: bytes, asker: tuple[str, int] = asker) -> None:
                with contextlib.suppress(OSError):
                    datagrams.sendto(answer, asker)

            self._question(data, gateway, asker[0], reply)

    def _question(self, data: bytes, gateway: str, client: str, reply: Callable[[bytes], None]) -> None:
        try:
            query = message.parse(data)
        except ValueError:
            return
        zones = self._zones.for_client(gateway, client)
        if not zones:
            return
        known = zone.answer(zones, query, random.shuffle)
        if known is not None:
            reply(known)
        elif len(self._pending) >= MOST_PENDING:
            reply(message.respond(query, message.SERVER_FAILURE))
        else:
            servers = self._upstreams.get(set(self._listening))
            self._ask_next(Forwarded(reply, query, data, servers))

    def _ask_next(self, asked: Forwarded) -> None:
        """Send to the next server that takes it; when none is left the asker is told so."""
        while asked.servers:
            server = asked.servers.pop(0)
            try:
                self._send(server, asked)
            except OSError:
                continue
            return
        asked.reply(message.respond(asked.query, message.SERVER_FAILURE))

    def _send(self, server: str, asked: Forwarded) -> None:
        upstream = connect(server, socket.SOCK_DGRAM)
        try:
            upstream.setblocking(False)
            upstream.send(asked.data)
        except OSError:
            upstream.close()
            raise
        asked.deadline = time.monotonic() + UPSTREAM_TIMEOUT_S
        self._pending[upstream] = asked
        self._selector.register(upstream, selectors.EVENT_READ, lambda: self._answer(upstream))

    def _answer(self, upstream: socket.socket) -> None:
        asked = self._pending[upstream]
        try:
            data = upstream.recv(message.TCP_BYTES)
        except OSError:  # nobody listens there
            self._drop(upstream)
            self._ask_next(asked)
            return
        if message.answers(data, asked.data):
            self._drop(upstream)
            asked.reply(message.with_id(data, asked.query.id))

    def _drop(self, upstream: socket.socket) -> None:
        del self._pending[upstream]
        self._forget(upstream)

    def _give_up(self, now: float) -> None:
        for upstream in [each for each, asked in self._pending.items() if asked.deadline <= now]:
            asked = self._pending[upstream]
            self._drop(upstream)
            self._ask_next(asked)

    # -- questions over TCP -----------------------------------------------------------------------

    def _accept(self, streams: socket.socket, gateway: str) -> None:
        try:
            connection, asker = streams.accept()
        except OSError:
            return
        if not self._connections.acquire(blocking=False):
            connection.close()
            return
        work = threading.Thread(target=self._converse, args=(connection, gateway, asker[0]), daemon=True)
        try:
            work.start()
        except RuntimeError:
            self._connections.release()
            connection.close()

    def _converse(self, connection: socket.socket, gateway: str, client: str) -> None:
        try:
            connection.settimeout(IDLE_TIMEOUT_S)
            for _ in range(100):
                data = _receive(connection)
                query = message.parse(data)
                zones = self._zones.for_client(gateway, client)
                known = zone.answer(zones, query, random.shuffle, limit=message.TCP_BYTES)
                answer = known if known is not None else self._ask_over_tcp(query, data)
                connection.sendall(len(answer).to_bytes(2) + answer)
        except (OSError, ValueError):
            pass  # went away, was silent too long, or spoke no DNS
        finally:
            connection.close()
            self._connections.release()

    def _ask_over_tcp(self, query: Query, data: bytes) -> bytes:
        for server in self._upstreams.get(set(self._listening)):
            try:
                with connect(server, socket.SOCK_STREAM) as upstream:
                    upstream.sendall(len(data).to_bytes(2) + data)
                    answer = _receive(upstream)
            except OSError:
                continue
            if message.answers(answer, data):
                return answer
        return message.respond(query, message.SERVER_FAILURE)


def _receive(connection: socket.socket) -> bytes:
    """One message behind its two bytes of length."""
    return _exactly(connection, int.from_bytes(_exactly(connection, 2)))


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise ConnectionResetError("closed")
        data += part
    return data


def main() -> None:
    folder, resolv_conf, version = sys.argv[1:4]
    control = socket.socket(fileno=os.dup(0))
    os.set_inheritable(control.fileno(), False)
    Resolver(Path(folder), Path(resolv_conf), version, control).run()


if __name__ == "__main__":
    main()
