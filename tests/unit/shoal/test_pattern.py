"""Patterns, by the table that docker's own are tested with (moby/patternmatcher), and `.dockerignore`."""

from __future__ import annotations

import pytest

from shoal.errors import InvalidArgument
from shoal.pattern import Matcher, read_ignore

_WHEEL = "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl"


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("**", "file", True),
        ("**/", "file", True),
        ("**", "dir/file", True),
        ("**/**", "dir/file", True),
        ("dir/**", "dir/file", True),
        ("dir/**", "dir/dir2/file", True),
        ("**/dir", "dir", True),
        ("**/dir", "dir/file", True),
        ("**/dir2/*", "dir/dir2/file", True),
        ("**/dir2/*", "dir/dir2/dir2/file", True),
        ("**file", "file", True),
        ("**file", "dir/file", True),
        ("**/file", "dir/dir/file", True),
        ("**/file*txt", "dir/dir/file.txt", True),
        ("**/**/*.txt", "file.txt", True),
        ("**/**/*.txt2", "dir/dir/file.txt", False),
        ("a**/*.txt", "a/file.txt", True),
        ("a**/*.txt", "a/dir/dir/file.txt", True),
        ("a/*.txt", "a/dir/file.txt", False),
        ("a/*.txt", "a/file.txt", True),
        ("a/*.txt**", "a/file.txt", True),
        ("a[b-d]e", "ae", False),
        ("a[b-d]e", "ace", True),
        ("a[b-d]e", "aae", False),
        ("a[^b-d]e", "aze", True),
        (".*", ".foo", True),
        (".*", "foo", False),
        ("abc.def", "abcZdef", False),
        ("abc?def", "abcZdef", True),
        ("abc?def", "abcdef", False),
        ("a\\\\", "a\\", True),
        ("**/foo/bar", "dir/foo/bar", True),
        ("abc/**", "abc", False),
        ("abc/**", "abc/def/ghi", True),
        ("**/.foo", ".foo", True),
        ("**/.foo", "bar.foo", False),
        ("a(b)c/def", "a(b)c/def", True),
        ("a(b)c/def", "a(b)c/xyz", False),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", True),
        (_WHEEL, _WHEEL, True),
        ("dist/*.whl", _WHEEL, True),
        ("abc", "x/abc", False),
        ("*.md", "d/x.md", False),
        ("abc", "abc/below", True),
        ("abc", "abcd", False),
    ],
)
def test_a_pattern_fits_as_dockers_does(pattern: str, path: str, fits: bool) -> None:
    assert Matcher([pattern]).matches(path) is fits
    # The way that is taken where something is brought back.
    assert Matcher([pattern, "!no/such/path"]).matches(path) is fits


@pytest.mark.parametrize("pattern", ["a[", "[", "[^", "[^bc", "a\\", "[a-]", "[]a]", "!"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidArgument):
        Matcher([pattern])


def test_the_last_pattern_that_fits_counts() -> None:
    matcher = Matcher(["*", "!docs", "docs/*.md", "!docs/README.md"])
    hidden = {path: matcher.matches(path) for path in ("a", "docs", "docs/a.txt", "docs/a.md", "docs/README.md", "x/y")}
    assert [path for path, gone in hidden.items() if not gone] == ["docs", "docs/a.txt", "docs/README.md"]
    assert not Matcher(["!a", "b"]).matches("a")
    assert Matcher(["!a", "a"]).matches("a")


def test_an_ignore_file_is_read_line_by_line() -> None:
    text = "\ufeff# comment\n\n /foo/../bar/ \n!  keep/it\n#not\n.\n  # a name\n/\na//b\r\n"
    assert read_ignore(text) == ["bar", "!keep/it", "# a name", "a/b"]
