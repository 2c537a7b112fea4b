"""Which files a build may see, and which of them are read again."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from cli.build.context import Context, _load, _save, gather, ignored, name_of
from shoal.pattern import Matcher

LATER = 1 << 62


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def paths(context: Context) -> list[str]:
    return sorted(os.fsdecode(each) for each in context.paths)


def folder(tmp_path: Path, *names: str) -> Path:
    root = tmp_path / "root"
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return root


def test_files_folders_and_links_are_seen_and_sockets_are_not(tmp_path: Path) -> None:
    root = folder(tmp_path, "a", "d/b")
    (root / "link").symlink_to("nowhere")
    os.mkfifo(root / "pipe")
    (root / os.fsdecode(b"\xff")).write_text("odd")
    found = gather(root, Matcher(()), "", now_ns=LATER)
    assert sorted(found.paths) == [b"a", b"d", b"d/b", b"link", b"\xff"]
    assert found.contents[found.paths.index(b"link")] == b"nowhere"
    assert found.contents[found.paths.index(b"d")] == b""


def test_what_is_hidden_is_not_even_looked_into_unless_something_comes_back(tmp_path: Path) -> None:
    root = folder(tmp_path, "keep", "hidden/x", "hidden/back")
    assert paths(gather(root, Matcher(["hidden"]), "", now_ns=LATER)) == ["keep"]
    assert paths(gather(root, Matcher(["hidden", "!hidden/back"]), "", now_ns=LATER)) == ["hidden/back", "keep"]


def test_the_ignore_file_of_a_dockerfile_counts_before_that_of_the_context(tmp_path: Path) -> None:
    root = folder(tmp_path, "Dockerfile")
    assert not ignored(root, root / "Dockerfile")
    (root / ".dockerignore").write_text("a")
    assert ignored(root, root / "Dockerfile").matches("a")
    (root / "Dockerfile.dockerignore").write_text("b")
    assert not ignored(root, root / "Dockerfile").matches("a")
    assert ignored(root, None).matches("a")


def test_only_what_changed_is_read_again(tmp_path: Path) -> None:
    root = folder(tmp_path, "same", "changed")
    name = name_of(root)
    gather(root, Matcher(()), name, now_ns=LATER)
    cache = tmp_path / "cache/shoal/context" / name
    lie = b"what is remembered of it, not read"
    _save(cache, {path: (*held[:4], lie) for path, held in _load(cache).items()})
    (root / "changed").write_text("other")
    found = gather(root, Matcher(()), name, now_ns=LATER)
    contents = dict(zip(found.paths, found.contents, strict=True))
    assert contents == {b"same": lie, b"changed": hashlib.sha256(b"other").digest()}


def test_what_changed_just_now_is_not_remembered(tmp_path: Path) -> None:
    """Within one tick of the file system's clock it may change again, and its times would not tell."""
    root = folder(tmp_path, "a")
    name = name_of(root)
    gather(root, Matcher(()), name, now_ns=(root / "a").stat().st_ctime_ns + 1)
    assert (tmp_path / "cache/shoal/context" / name).exists()
    assert _load(tmp_path / "cache/shoal/context" / name) == {}


def test_a_damaged_memory_is_forgotten(tmp_path: Path) -> None:
    root = folder(tmp_path, "a")
    name = name_of(root)
    gather(root, Matcher(()), name, now_ns=LATER)
    cache = tmp_path / "cache/shoal/context" / name
    whole = cache.read_bytes()
    for torn in (b"\xc1nonsense", b"", whole[:-1], whole[:-9] + bytes(9)):
        cache.write_bytes(torn)
        assert _load(cache) == {}
        assert paths(gather(root, Matcher(()), name, now_ns=LATER)) == ["a"]
    assert cache.read_bytes() == whole
