"""A volume gets what the image has at its target: all of it, and nothing else."""

import os
import stat

import pytest

from agent.container.seed import seed
from shoal.errors import InvalidArgument

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="owners need root")


@pytest.fixture
def image(tmp_path):
    top, base = tmp_path / "top", tmp_path / "base"
    for each in (top, base):
        (each / "data").mkdir(parents=True)
    return top, base


def fill(image, tmp_path, target="/data"):
    made = tmp_path / "copy"
    return made if seed([str(each) for each in image], target, made) else None


def test_content_of_all_layers(image, tmp_path):
    top, base = image
    (top / "data/new").write_text("new")
    (base / "data/old").write_text("old")
    (base / "data/deep/er").mkdir(parents=True)
    (base / "data/deep/er/file").write_bytes(b"x" * 3_000_000)
    made = fill(image, tmp_path)
    assert sorted(os.listdir(made)) == ["deep", "new", "old"]
    assert (made / "deep/er/file").stat().st_size == 3_000_000


def test_owner_mode_and_time_are_kept(image, tmp_path):
    file = image[0] / "data/tool"
    file.write_text("x")
    os.chown(file, 1000, 1001)
    file.chmod(0o4755)
    os.utime(file, ns=(10**18, 10**18))
    os.chown(image[0] / "data", 7, 8)
    (image[0] / "data").chmod(0o1770)
    made = fill(image, tmp_path)
    about = (made / "tool").stat()
    assert (about.st_uid, about.st_gid, stat.S_IMODE(about.st_mode), about.st_mtime_ns) == (1000, 1001, 0o4755, 10**18)
    about = made.stat()
    assert (about.st_uid, about.st_gid, stat.S_IMODE(about.st_mode)) == (7, 8, 0o1770)


def test_links_fifos_and_devices_are_kept_and_never_followed(image, tmp_path):
    data = image[0] / "data"
    (tmp_path / "secret").write_text("secret")
    (data / "link").symlink_to(tmp_path / "secret")
    (data / "folder").symlink_to("/etc")
    os.mkfifo(data / "fifo", 0o620)
    os.mknod(data / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (data / "a").write_text("same")
    os.link(data / "a", data / "b")
    made = fill(image, tmp_path)
    assert os.readlink(made / "link") == str(tmp_path / "secret")
    assert (made / "folder").is_symlink()
    assert stat.S_ISFIFO((made / "fifo").lstat().st_mode)
    assert (made / "null").lstat().st_rdev == os.makedev(1, 3)
    assert (made / "a").stat().st_ino == (made / "b").stat().st_ino


def test_attributes_are_kept(image, tmp_path):
    file = image[0] / "data/x"
    file.write_text("x")
    os.setxattr(file, "user.color", b"blue")
    assert os.getxattr(fill(image, tmp_path) / "x", "user.color") == b"blue"


def test_a_target_behind_a_link(image, tmp_path):
    (image[1] / "var").symlink_to("data")
    (image[0] / "data/x").write_text("x")
    assert os.listdir(fill(image, tmp_path, "/var")) == ["x"]


@pytest.mark.parametrize("target", ["/none", "/data/file"])
def test_nothing_where_the_image_has_no_folder(image, tmp_path, target):
    (image[0] / "data/file").write_text("x")
    assert fill(image, tmp_path, target) is None
    assert not (tmp_path / "copy").exists()


def test_a_bottomless_image_is_refused(image, tmp_path):
    folder = image[0] / "data"
    for _ in range(200):
        folder = folder / "d"
    folder.mkdir(parents=True)
    with pytest.raises(InvalidArgument, match="nested deeper"):
        fill(image, tmp_path)
