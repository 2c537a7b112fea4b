"""The keeper's event loop: epoll with a callback per descriptor, and workers for what may block.

Callbacks run in the loop's thread and never block. A worker's result comes back into the loop's thread too, so that the
keeper's state needs no lock.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any

IN, OUT, HUP, ERR = select.EPOLLIN, select.EPOLLOUT, select.EPOLLHUP, select.EPOLLERR

Callback = Callable[[int], None]


class _Worker:
    """Waits for a job at a gate of its own, so that the last one that worked can be chosen: what it needs is near. Of
    those that wait for one condition, the first one that began to wait would be woken."""

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._gate.acquire()
        self._job: Callable[[], None] | None = None

    def give(self, job: Callable[[], None]) -> None:
        self._job = job
        self._gate.release()

    def await_job(self) -> Callable[[], None]:
        self._gate.acquire()
        job, self._job = self._job, None
        assert job is not None
        return job


class Loop:
    """Runs until `stop`."""

    def __init__(self, workers: int) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callback] = {}
        self._new: set[int] = set()  # watched since the last look at all
        self._jobs: deque[Callable[[], None]] = deque()
        self._idle: list[_Worker] = []
        self._handing = threading.Lock()  # of jobs and idle workers
        self._done: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._running = True
        self.watch(self._wake, IN, self._woken)
        for _ in range(workers):
            threading.Thread(target=self._work, args=(_Worker(),), daemon=True).start()

    def watch(self, fd: int, events: int, callback: Callback) -> None:
        """Call `callback(events)` when `fd` is ready; HUP and ERR always count."""
        self._callbacks[fd] = callback
        self._new.add(fd)
        self._epoll.register(fd, events)

    def change(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Stop watching; do this before the descriptor is closed."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def submit(self, job: Callable[[], Any], done: Callable[[Any, BaseException | None], None]) -> None:
        """Run `job` in a worker, then `done(result, error)` here."""

        def run() -> None:
            try:
                result, error = job(), None
            except BaseException as caught:  # carried over to the loop's thread
                result, error = None, caught
            self.call(lambda: done(result, error))

        with self._handing:
            if not self._idle:
                self._jobs.append(run)
                return
            worker = self._idle.pop()
        worker.give(run)

    def call(self, function: Callable[[], None]) -> None:
        """Run `function` in the loop's thread, soon. Any thread may ask."""
        self._done.put(function)
        os.eventfd_write(self._wake, 1)

    def stop(self) -> None:
        self._running = False

    def run(self) -> None:
        while self._running:
            self._new.clear()
            for fd, events in self._epoll.poll():
                # An earlier callback of this round may have forgotten it, and what has its number now is another: a
                # container that has just begun would be taken for one that has ended.
                callback = self._callbacks.get(fd) if fd not in self._new else None
                if callback is not None:
                    self._guarded(partial(callback, events))

    def _woken(self, _: int) -> None:
        os.eventfd_read(self._wake)
        while not self._done.empty():
            self._guarded(self._done.get_nowait())

    def _work(self, worker: _Worker) -> None:
        while True:
            with self._handing:
                job = self._jobs.popleft() if self._jobs else None
                if job is None:
                    self._idle.append(worker)
            (job or worker.await_job())()

    def _guarded(self, function: Callable[[], None]) -> None:
        """The boundary: one container's trouble must not take the parent of all of them down."""
        try:
            function()
        except Exception:
            traceback.print_exc(file=sys.stderr)
            sys.stderr.flush()
