"""A root read through its layers: what overlayfs would show, and nothing outside of it."""

import os

import pytest

from agent.container.rootview import RootView

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="whiteouts and trusted attributes need root")


@pytest.fixture
def layers(tmp_path):
    made = [tmp_path / name for name in ("upper", "middle", "lowest")]
    for each in made:
        each.mkdir()
    return made


def put(layer, path, text="x"):
    file = layer / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def view(layers):
    return RootView([str(each) for each in layers])


def names(layers, path):
    with view(layers) as root, root.folder(path) as folder:
        return folder.names() if folder else None


def read(layers, path):
    with view(layers) as root:
        return root.read(path)


def test_the_top_layer_wins_and_folders_merge(layers):
    put(layers[0], "etc/passwd", "new")
    put(layers[2], "etc/passwd", "old")
    put(layers[2], "etc/group", "g")
    assert read(layers, "/etc/passwd") == b"new"
    assert read(layers, "/etc/group") == b"g"
    assert names(layers, "/etc") == ["group", "passwd"]


def test_what_is_not_there(layers):
    put(layers[0], "file")
    for path in ("/none", "/none/x", "/file/x", "/"):
        assert read(layers, path) is None
    assert names(layers, "/file") is None


@needs_root
def test_a_whiteout_hides_what_is_below(layers):
    put(layers[2], "etc/passwd")
    put(layers[2], "opt/x")
    (layers[0] / "etc").mkdir()
    os.mknod(layers[0] / "etc/passwd", 0o20000, 0)
    os.mknod(layers[1] / "opt", 0o20000, 0)
    assert read(layers, "/etc/passwd") is None
    assert names(layers, "/etc") == []
    assert names(layers, "/opt") is None
    assert names(layers, "/") == ["etc"]


@needs_root
def test_an_opaque_folder_hides_what_is_below(layers):
    put(layers[0], "etc/new")
    put(layers[1], "etc/hidden")
    os.setxattr(layers[0] / "etc", "trusted.overlay.opaque", b"y")
    assert names(layers, "/etc") == ["new"]
    assert read(layers, "/etc/hidden") is None


def test_a_file_hides_a_folder_below(layers):
    put(layers[0], "etc")
    put(layers[1], "etc/passwd")
    assert read(layers, "/etc") == b"x"
    assert read(layers, "/etc/passwd") is None


def test_links_are_followed_inside_the_root_only(layers, tmp_path):
    (tmp_path / "secret").write_text("secret")
    put(layers[1], "usr/etc/passwd", "inside")
    put(layers[1], "secret", "mine")
    for name, target in {
        "etc": "usr/etc",
        "absolute": "/usr/etc",
        "up": "../../../../secret",
        "out": str(tmp_path / "secret"),
        "loop": "loop",
    }.items():
        (layers[0] / name).symlink_to(target)
    assert read(layers, "/etc/passwd") == b"inside"
    assert read(layers, "/absolute/passwd") == b"inside"
    assert read(layers, "/up") == b"mine"
    assert read(layers, "/out") is None
    assert read(layers, "/loop") is None
    assert read(layers, "/usr/../etc/../../secret") == b"mine"


def test_only_regular_files_are_read(layers):
    os.mkfifo(layers[0] / "fifo")
    assert read(layers, "/fifo") is None


def test_no_more_than_the_limit_is_read(layers):
    put(layers[0], "big", "x" * 100)
    with view(layers) as root:
        assert root.read("/big", limit=10) == b"x" * 10


def test_no_descriptor_is_left_open(layers):
    put(layers[0], "a/b/c/file")
    before = len(os.listdir("/proc/self/fd"))
    read(layers, "/a/b/c/file")
    names(layers, "/a/b")
    read(layers, "/a/none/x")
    assert len(os.listdir("/proc/self/fd")) == before
