"""The keeper's one exception: what went wrong in words, and which error of `shoal.errors` the agent raises for it.

The keeper imports the standard library only, so it names the class (`kind`) and `runtime` makes the object.
"""

from __future__ import annotations


class Failure(Exception):
    """`kind` is a class name of `shoal.errors`: InvalidArgument, NotFound, Conflict, StartFailed…"""

    def __init__(self, kind: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.hint = hint
