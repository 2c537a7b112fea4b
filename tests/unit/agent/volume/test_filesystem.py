"""What the options of a volume come to."""

import pytest

from agent.kernel import syscalls as sys
from agent.volume.filesystem import Filesystem, check_options, folder_of, mount_of
from shoal.errors import InvalidArgument


@pytest.mark.parametrize(
    ("options", "filesystem", "folder"),
    [
        ({}, None, ""),
        ({"type": "none", "o": "bind,ro", "device": "/srv"}, None, "/srv"),
        ({"o": "rbind", "device": "/srv"}, None, "/srv"),
        (
            {"type": "tmpfs", "device": "tmpfs", "o": "size=1m,noexec,ro,rw"},
            Filesystem("tmpfs", "tmpfs", sys.MS_NOEXEC, "size=1m"),
            "",
        ),
        (
            {"type": "nfs", "device": ":/share", "o": "addr=10.0.0.5,vers=4,ro"},
            Filesystem("nfs", ":/share", sys.MS_RDONLY, "addr=10.0.0.5,vers=4"),
            "",
        ),
    ],
)
def test_a_volume_is_a_folder_or_a_filesystem(options, filesystem, folder):
    check_options(options)
    assert mount_of(options) == filesystem
    assert folder_of(options) == folder


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"odd": "1"}, 'invalid option: "odd"'),
        ({"type": "tmpfs"}, "missing device"),
        ({"device": "/dev/sdb"}, "missing type"),
        ({"o": "bind", "device": "srv"}, "no absolute path"),
        ({"type": "tmpfs", "device": "a\0b"}, "NUL"),
    ],
)
def test_what_is_no_volume_is_refused(options, words):
    with pytest.raises(InvalidArgument, match=words):
        check_options(options)
