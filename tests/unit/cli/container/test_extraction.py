"""A tar from a container, taken apart here."""

import io
import os
import tarfile

import pytest

from cli.container.extraction import extract
from shoal.errors import Conflict, InvalidArgument, ShoalError


def tar(*members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, kind, value in members:
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode, entry.mtime = kind, 0o640, 1000
            if kind == tarfile.REGTYPE:
                entry.size = len(value)
                archive.addfile(entry, io.BytesIO(value))
            else:
                entry.linkname = value
                archive.addfile(entry)
    return buffer.getvalue()


async def taken_apart(folder, *members, keep_owner=False):
    data = tar(*members)

    async def chunks():
        for at in range(0, len(data), 777):
            yield data[at : at + 777]

    return await extract(chunks(), str(folder), keep_owner=keep_owner)


async def test_files_folders_and_links(tmp_path):
    size_bytes = await taken_apart(
        tmp_path,
        ("d", tarfile.DIRTYPE, ""),
        ("d/file", tarfile.REGTYPE, b"x" * 5000),
        ("d/twin", tarfile.LNKTYPE, "d/file"),
        ("d/link", tarfile.SYMTYPE, "/etc/passwd"),
        ("deep/er/file", tarfile.REGTYPE, b"y"),
    )
    assert size_bytes == 5001
    assert (tmp_path / "d/file").read_bytes() == b"x" * 5000
    assert (tmp_path / "d/file").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "d/file").stat().st_mtime == 1000
    assert (tmp_path / "d").stat().st_mtime == 1000
    assert (tmp_path / "d/twin").stat().st_ino == (tmp_path / "d/file").stat().st_ino
    assert os.readlink(tmp_path / "d/link") == "/etc/passwd"
    assert (tmp_path / "deep/er/file").read_bytes() == b"y"


async def test_what_is_there_is_replaced_and_its_links_are_not_followed(tmp_path):
    (tmp_path / "victim").write_text("kept")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/file").symlink_to(tmp_path / "victim")
    await taken_apart(tmp_path / "out", ("file", tarfile.REGTYPE, b"new"))
    assert (tmp_path / "out/file").read_text() == "new"
    assert (tmp_path / "victim").read_text() == "kept"


@pytest.mark.parametrize(
    ("members", "error"),
    [
        ([("../evil", tarfile.REGTYPE, b"x")], InvalidArgument),
        ([("a/../../evil", tarfile.REGTYPE, b"x")], InvalidArgument),
        ([("link", tarfile.SYMTYPE, ".."), ("link/evil", tarfile.REGTYPE, b"x")], ShoalError),
        ([("hard", tarfile.LNKTYPE, "../secret")], InvalidArgument),
        ([("here", tarfile.SYMTYPE, ".."), ("hard", tarfile.LNKTYPE, "here/secret")], ShoalError),
        ([("folder", tarfile.REGTYPE, b"x")], Conflict),
        ([("file", tarfile.DIRTYPE, "")], Conflict),
    ],
)
async def test_nothing_leaves_the_folder(tmp_path, members, error):
    (tmp_path / "secret").write_text("secret")
    out = tmp_path / "out"
    (out / "folder").mkdir(parents=True)
    (out / "file").touch()
    with pytest.raises(error):
        await taken_apart(out, *members)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out", "secret"]
    assert not (out / "hard").exists()
