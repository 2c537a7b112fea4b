"""What is packed is on disk, and the standard library reads it."""

import io
import os
import tarfile

import pytest

from shoal.tarball import END, Packer, marker


def packed(path, name="top"):
    data = b"".join(Packer().tree(str(path), name)) + END
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {each.name: (each, archive.extractfile(each).read() if each.isreg() else b"") for each in archive}


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "below").mkdir(mode=0o750)
    (folder / "below/file").write_bytes(b"x" * 1000)
    (folder / "below/file").chmod(0o4755)
    os.link(folder / "below/file", folder / "twin")
    (folder / "link").symlink_to("/etc/passwd")
    os.mkfifo(folder / "fifo", 0o600)
    return folder


def test_a_tree_with_all_kinds_of_entries(tree):
    found = packed(tree)
    assert list(found) == ["top", "top/below", "top/below/file", "top/fifo", "top/link", "top/twin"]
    entry, data = found["top/below/file"]
    assert (data, entry.mode, entry.mtime) == (b"x" * 1000, 0o4755, int((tree / "twin").stat().st_mtime))
    assert found["top/below"][0].mode == 0o750
    assert (found["top/twin"][0].islnk(), found["top/twin"][0].linkname) == (True, "top/below/file")
    assert (found["top/link"][0].issym(), found["top/link"][0].linkname) == (True, "/etc/passwd")
    assert found["top/fifo"][0].isfifo()


@pytest.mark.parametrize(("name", "names"), [(".", [".", "a"]), ("", ["a"])])
def test_the_top_may_have_no_name(tmp_path, name, names):
    (tmp_path / "a").write_text("a")
    assert list(packed(tmp_path, name)) == names


@pytest.mark.parametrize("name", ["n" * 255, "ü" * 100, b"\xff\xfe".decode("utf-8", "surrogateescape")])
def test_names_of_any_length_and_bytes(tmp_path, name):
    (tmp_path / name).write_text("x")
    assert [os.fsencode(each) for each in packed(tmp_path, "")] == [os.fsencode(name)]


def test_what_is_large_or_empty(tmp_path):
    (tmp_path / "large").write_bytes(os.urandom(700_001))
    (tmp_path / "empty").touch()
    found = packed(tmp_path, "")
    assert found["large"][1] == (tmp_path / "large").read_bytes()
    assert found["empty"][1] == b""


def test_a_file_that_shrinks_meanwhile_leaves_the_archive_whole(tmp_path):
    (tmp_path / "a").write_bytes(b"x" * 600_000)
    (tmp_path / "b").write_bytes(b"b")
    pieces = Packer().tree(str(tmp_path), "")
    data = next(pieces) + next(pieces)
    (tmp_path / "a").write_bytes(b"")
    data += b"".join(pieces) + END
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert [(each.name, each.size) for each in archive] == [("a", 600_000), ("b", 1)]


def test_what_is_gone_is_left_out(tmp_path):
    assert packed(tmp_path / "gone") == {}


def test_an_attribute_that_means_something_elsewhere_is_kept(tmp_path):
    (tmp_path / "a").touch()
    os.setxattr(tmp_path / "a", "user.note", b"\xffbytes")
    headers = packed(tmp_path, "")["a"][0].pax_headers
    assert headers["SCHILY.xattr.user.note"].encode("utf-8", "surrogateescape") == b"\xffbytes"


def test_a_marker_is_an_empty_file():
    with tarfile.open(fileobj=io.BytesIO(marker(".wh.gone") + END)) as archive:
        assert [(each.name, each.size) for each in archive] == [(".wh.gone", 0)]
