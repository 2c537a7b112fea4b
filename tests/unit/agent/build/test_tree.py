"""Which files of a context an instruction means."""

from __future__ import annotations

import stat

import pytest

from agent.build.tree import Entry, Tree, content_digest
from shoal.errors import NotFound

FILE, FOLDER, LINK = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777


def tree(*paths: str, mtime_ns: int = 0, **links: str) -> Tree:
    entries = [Entry(each, FILE, 1, mtime_ns, f"sha256:{each}") for each in paths]
    entries += [Entry(name.replace("__", "/"), LINK, link=link) for name, link in links.items()]
    return Tree(entries)


def names(found: Tree, wanted: str, **how: object) -> list[tuple[bool, list[str]]]:
    return [(each.folder, [one.path for one in each.entries]) for each in found.sources(wanted, **how)]  # type: ignore[arg-type]


def test_a_folder_stands_for_what_is_in_it() -> None:
    found = tree("a", "d/x", "d/e/y")
    assert names(found, ".") == [(True, ["a", "d", "d/e", "d/e/y", "d/x"])]
    assert names(found, "d") == names(found, "/d/") == [(True, ["e", "e/y", "x"])]
    assert names(found, "d/x") == [(False, ["x"])]


def test_patterns_stop_at_a_slash() -> None:
    found = tree("a.txt", "b.txt", "c.md", "d/e.txt", "d/[f]")
    assert names(found, "*.txt") == [(False, ["a.txt"]), (False, ["b.txt"])]
    assert names(found, "d/?.txt") == [(False, ["e.txt"])]
    assert names(found, "*/e.txt") == [(False, ["e.txt"])]
    assert names(found, "d/[[]f]") == [(False, ["[f]"])]
    assert names(found, "[b-c].*") == [(False, ["b.txt"]), (False, ["c.md"])]


def test_links_are_followed_at_the_top_and_kept_below() -> None:
    found = tree("real/x", link="real", d__inner="../real/x", out="/../../real/x")
    assert names(found, "link") == [(True, ["x"])]
    assert names(found, "link/x") == [(False, ["x"])]
    assert names(found, "out") == [(False, ["out"])]
    assert found.sources("out")[0].entries[0].digest == "sha256:real/x"
    assert found.sources("d")[0].entries[0].link == "../real/x"


def test_a_ring_of_links_ends() -> None:
    with pytest.raises(NotFound):
        tree(a="b", b="a").sources("a/x")


def test_what_is_excluded_is_left_out_and_parents_are_kept() -> None:
    found = tree("d/a.txt", "d/b.md", "d/e/c.md")
    assert names(found, "d", exclude=("**/*.md",)) == [(True, ["a.txt", "e"])]
    assert names(found, "d/a.txt", parents=True) == [(True, ["d/a.txt"])]
    assert names(found, "d/e", parents=True) == [(True, ["d/e", "d/e/c.md"])]


def test_what_is_excluded_is_so_by_its_path_in_what_is_copied() -> None:
    found = tree("d/a.txt", "d/b.md", "d/e/c.md", "f/b.md")
    assert names(found, "d", exclude=("*.md", "e/*.txt")) == [(True, ["a.txt", "e", "e/c.md"])]
    assert names(found, ".", exclude=("*.md", "d/e")) == [(True, ["d", "d/a.txt", "d/b.md", "f", "f/b.md"])]
    assert names(found, "?", exclude=("b.*",)) == [(True, ["a.txt", "e", "e/c.md"]), (True, [])]
    assert names(found, "d/*", exclude=("*.md",)) == [(False, ["a.txt"]), (True, [])]
    assert names(found, "d/e", parents=True, exclude=("d/e/*",)) == [(True, ["d/e"])]


def test_a_context_is_its_own_parent() -> None:
    assert names(tree("a", "d/b"), "../../a") == [(False, ["a"])]
    assert names(tree("a", "d/b"), "d/../../d") == [(True, ["b"])]


def test_nothing_is_not_found() -> None:
    with pytest.raises(NotFound, match='"/missing": not found in the build context'):
        tree("a").sources("missing")
    with pytest.raises(NotFound):
        tree("a").sources("*.txt")


def test_a_content_is_names_modes_contents_and_links_and_no_times() -> None:
    def digest(found: Tree) -> str:
        return content_digest(found.sources("."))

    first = digest(tree("a", "b"))
    assert digest(tree("b", "a", mtime_ns=99)) == first
    assert digest(tree("a", "c")) != first
    assert digest(Tree([Entry("a", FILE | 0o111, 1, 0, "sha256:a"), Entry("b", FILE, 1, 0, "sha256:b")])) != first
    assert digest(tree("a", b="a")) != digest(tree("a", b="x"))
    assert content_digest(tree("d/a").sources("d/a")) != content_digest(tree("d/a").sources("d"))
    assert content_digest(Tree([Entry("\udcff", FILE, 1, 0, "sha256:x")]).sources("."))
