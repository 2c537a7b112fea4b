"""Processes that become the keeper's children by the death of their parents, because it is their subreaper.

A container that another runtime made is one: that runtime has ended, and the keeper awaits it like any other. The rest,
of containers that share the host's pid namespace, has nobody who waits; what has ended of it is reaped here.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Collection

from agent.kernel import syscalls
from agent.runtime.loop import Loop


class Orphans:
    """Owned by the loop's thread. `awaited` are the children that somebody else reaps."""

    def __init__(self, loop: Loop, awaited: Callable[[], Collection[int]]) -> None:
        self._loop = loop
        self._awaited = awaited
        self._working = 0
        self._ours = False

    def take(self) -> None:
        """Be the subreaper from now on. Idempotent; what another code of this process took stays taken."""
        if not self._ours:
            syscalls.call("prctl", syscalls.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            signal.signal(signal.SIGCHLD, lambda _number, _frame: self._loop.call(self._reap))
            self._ours = True

    def work_begins(self) -> None:
        """A worker makes processes, which nobody knows yet: nothing is reaped until it has ended."""
        self._working += 1

    def work_ended(self) -> None:
        self._working -= 1
        self._reap()

    def _reap(self) -> None:
        """One that is awaited hides those that ended after it, until it is reaped and this runs again."""
        while self._ours and not self._working:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None or found.si_pid in self._awaited():
                return
            os.waitpid(found.si_pid, 0)
