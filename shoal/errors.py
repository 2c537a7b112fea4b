"""The error tree. Each error has a gRPC status and an exit code; its message says what failed, on what, with
which value, and the hint says what to do instead.

    ShoalError                  1    internal
    ├── InvalidArgument       125    a value that can never be right
    ├── NotFound                1    a thing that is not there
    ├── Conflict                1    a thing that is in the way: in use, exists already, newer version
    ├── PermissionDenied        1    the caller may not
    ├── Unavailable             1    try again later, or elsewhere
    │   └── Locked              1    a manager that waits for its unlock key
    ├── Unsupported           125    refused by name
    ├── Exhausted             125    no more of it: disk, addresses, ports
    ├── DeadlineExceeded        1
    └── StartFailed           125    a container's process could not be started
        ├── CommandNotExecutable 126
        └── CommandNotFound      127
    Compacted                        store: the revision asked for is gone; read again

On the wire an error travels as the status code, the message as details, and `shoal-error`, `shoal-hint` and
`shoal-exit-code` in the trailing metadata (`shoal.rpc`).
"""

from __future__ import annotations

import enum


class Code(enum.Enum):
    """The gRPC status codes that we use, by name (https://grpc.github.io/grpc/core/md_doc_statuscodes.html)."""

    INTERNAL = 13
    INVALID_ARGUMENT = 3
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNAVAILABLE = 14
    UNIMPLEMENTED = 12
    DEADLINE_EXCEEDED = 4
    OUT_OF_RANGE = 11


class ShoalError(Exception):
    """A failure with a sentence for the person who has to act on it."""

    code = Code.INTERNAL
    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        if not self.hint:
            return self.message
        joint = " " if self.message.endswith(("?", "!")) else "; "
        return f"{self.message.removesuffix('.')}{joint}{self.hint}"


class InvalidArgument(ShoalError):
    code = Code.INVALID_ARGUMENT
    exit_code = 125


class NotFound(ShoalError):
    code = Code.NOT_FOUND


class Conflict(ShoalError):
    code = Code.FAILED_PRECONDITION


class PermissionDenied(ShoalError):
    code = Code.PERMISSION_DENIED


class Unavailable(ShoalError):
    code = Code.UNAVAILABLE


class Locked(Unavailable):
    """docker's words."""

    def __init__(self, message: str = "", *, hint: str = "") -> None:
        super().__init__(
            message
            or "Swarm is encrypted and needs to be unlocked before it can be used. "
            'Please use "shoal swarm unlock" to unlock it.',
            hint=hint,
        )


class Unsupported(ShoalError):
    code = Code.UNIMPLEMENTED
    exit_code = 125


class Exhausted(ShoalError):
    code = Code.RESOURCE_EXHAUSTED
    exit_code = 125


class DeadlineExceeded(ShoalError):
    code = Code.DEADLINE_EXCEEDED


class StartFailed(ShoalError):
    exit_code = 125


class CommandNotExecutable(StartFailed):
    exit_code = 126


class CommandNotFound(StartFailed):
    exit_code = 127


class Compacted(ShoalError):
    """The store no longer has what happened since the revision asked for: read everything again."""

    code = Code.OUT_OF_RANGE

    def __init__(self, revision: int, oldest: int = 0) -> None:
        """`oldest` is the oldest one kept; 0 where the store does not say."""
        known = f"; the oldest one kept is {oldest}" if oldest else ""
        super().__init__(f"revision {revision} is compacted{known}")
        self.revision = revision
        self.oldest = oldest


TREE: dict[str, type[ShoalError]] = {
    kind.__name__: kind
    for kind in (
        ShoalError,
        InvalidArgument,
        NotFound,
        Conflict,
        PermissionDenied,
        Unavailable,
        Locked,
        Unsupported,
        Exhausted,
        DeadlineExceeded,
        StartFailed,
        CommandNotExecutable,
        CommandNotFound,
    )
}
