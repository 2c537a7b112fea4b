"""Where a copy ends up, by docker's rules."""

import pytest

from cli.container.copying import Found, Landing, Place, asserts_folder, base_name, landing, place
from shoal.errors import ShoalError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("web:/etc", Place("web", "/etc")),
        ("web:etc", Place("web", "etc")),
        ("/etc:x", Place("", "/etc:x")),
        ("./a:b", Place("", "./a:b")),
        ("file", Place("", "file")),
        ("-", Place("", "-")),
    ],
)
def test_a_colon_tells_a_container(text, expected):
    assert place(text) == expected


@pytest.mark.parametrize(("path", "name"), [("/a/b", "b"), ("/a/b/", "b"), ("/a/b/.", "."), (".", "."), ("a", "a")])
def test_a_dot_at_the_end_means_the_content(path, name):
    assert base_name(path) == name


@pytest.mark.parametrize(
    ("name", "folder", "to", "expected"),
    [
        ("src", True, Found("/d", exists=True, folder=True), Landing("/d", "src")),
        (".", True, Found("/d", exists=True, folder=True), Landing("/d", ".")),
        ("src", True, Found("/d/new"), Landing("/d", "new")),
        (".", True, Found("/d/new"), Landing("/d", "new")),
        ("file", False, Found("/d", exists=True, folder=True), Landing("/d", "file")),
        ("file", False, Found("/d/old", exists=True), Landing("/d", "old")),
        ("file", False, Found("/new"), Landing("/", "new")),
    ],
)
def test_a_source_lands_in_a_folder_or_under_a_new_name(name, folder, to, expected):
    assert landing(name, folder=folder, to=to, asserts_folder=False) == expected


@pytest.mark.parametrize(
    ("folder", "to", "said"),
    [
        (True, Found("/file", exists=True), "cannot copy directory"),
        (False, Found("/new/"), "no such directory"),
        (False, Found("/file", exists=True), "/file is not a directory"),
    ],
)
def test_what_cannot_land(folder, to, said):
    with pytest.raises(ShoalError, match=said):
        landing("src", folder=folder, to=to, asserts_folder=not folder)


def test_a_slash_asserts_a_folder():
    assert asserts_folder("/a/")
    assert asserts_folder("/a/.")
    assert not asserts_folder("/a/b")
