"""Whether a folder can hold what is written through an overlay: asked of the kernel, by one that is mounted nowhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from agent.kernel import syscalls as sys


def check(*, lower: str, upper: str, work: str) -> None:
    """Raises OSError where the disk cannot be an overlay's upper one, as another overlay or NFS (overlayfs.rst)."""
    with ExitStack() as stack:
        context = sys.call("fsopen", b"overlay", sys.FSOPEN_CLOEXEC)
        stack.callback(os.close, context)
        for key, folder in ((b"lowerdir", lower), (b"upperdir", upper), (b"workdir", work)):
            name = stack.enter_context(_short(folder))
            sys.call("fsconfig", context, sys.FSCONFIG_SET_STRING, key, name, 0)
        sys.call("fsconfig", context, sys.FSCONFIG_CMD_CREATE, 0, 0, 0)


@contextmanager
def _short(folder: str) -> Iterator[bytes]:
    """A name of it: fsconfig(2) takes no string of more than 255 bytes."""
    descriptor = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    try:
        yield b"/proc/self/fd/%d" % descriptor
    finally:
        os.close(descriptor)
