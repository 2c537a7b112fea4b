"""A program that nobody can write to through a process that runs it.

What enters a container is for a moment a process of the runtime's inside. An image can make the kernel run it again
(`/proc/self/exe` as a command, a link, a first line of a script) with a loader of its own, keep the file open and write
to it once nobody runs it: CVE-2019-5736. A process that was started through such a descriptor runs from a read-only
mount of its own, in no namespace that anybody could remount it in; the file's pages are shared with whoever else runs
it. (`agent.runtime.oci.sealed` copies instead, since what calls it need not be allowed to mount.)
"""

from __future__ import annotations

import os
import struct

from agent.kernel import syscalls as sys


def program(path: str) -> int:
    """A descriptor, closed on exec, to be run as `/proc/self/fd/N`."""
    flags = sys.OPEN_TREE_CLONE | sys.OPEN_TREE_CLOEXEC
    tree = sys.call("open_tree", sys.AT_FDCWD, os.fsencode(path), flags)
    try:
        attributes = struct.pack("<QQQQ", sys.MOUNT_ATTR_RDONLY, 0, 0, 0)
        sys.call("mount_setattr", tree, b"", sys.AT_EMPTY_PATH, attributes, len(attributes))
    except OSError:
        os.close(tree)
        raise
    return tree
