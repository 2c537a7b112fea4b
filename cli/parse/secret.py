"""A secret that a command is given in a file: an argument could be read by everybody on the host (proc(5))."""

import sys

from shoal.errors import InvalidArgument


def secret_in(path: str, *, asked: str) -> str:
    """The first line of the file that the flag `asked` names, or of stdin for "-"; nothing where it was not given."""
    if not path:
        return ""
    try:
        text = sys.stdin.readline() if path == "-" else _content(path)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InvalidArgument(f"{asked} {path} cannot be read: {why}") from error
    line = text.split("\n", 1)[0].rstrip("\r")
    if not line:
        raise InvalidArgument(f"{asked} {path} is empty")
    return line


def _content(path: str) -> str:
    with open(path, encoding="utf-8") as file:  # noqa: PTH123  # pathlib is 10 ms of a start
        return file.read()
