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
        ├── CommandNotFound      127
        └── SourceNotFound       127    what the host is to give it is not there: a device, a sysctl
    Compacted                        store: the revision asked for is gone; read again

On the wire an error travels as the status code, the message as details, and `shoal-error`, `shoal-hint-bin` and
`shoal-exit-code` in the trailing metadata: `trailing_of` and `of_status`, whatever carries it (`shoal.rpc`,
`shoal.lane`).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping


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


class SourceNotFound(StartFailed):
    """docker tells it by the same code as a command that is not found."""

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
        SourceNotFound,
    )
}

# What a status comes to that says nothing more; 1 is CANCELLED, 16 UNAUTHENTICATED.
_KINDS: dict[int, type[ShoalError]] = {
    1: Unavailable,
    Code.INVALID_ARGUMENT.value: InvalidArgument,
    Code.NOT_FOUND.value: NotFound,
    Code.FAILED_PRECONDITION.value: Conflict,
    Code.ALREADY_EXISTS.value: Conflict,
    Code.PERMISSION_DENIED.value: PermissionDenied,
    16: PermissionDenied,
    Code.UNAVAILABLE.value: Unavailable,
    Code.UNIMPLEMENTED.value: Unsupported,
    Code.RESOURCE_EXHAUSTED.value: Exhausted,
    Code.DEADLINE_EXCEEDED.value: DeadlineExceeded,
}


def trailing_of(error: ShoalError) -> tuple[tuple[str, str | bytes], ...]:
    """What travels beside the status of an error."""
    return (
        ("shoal-error", type(error).__name__),
        ("shoal-hint-bin", error.hint.encode()),
        ("shoal-exit-code", str(error.exit_code)),
    )


def of_status(code: int, message: str, trailing: Mapping[str, str | bytes]) -> ShoalError:
    """The error that a server raised, or what the failure of the call itself comes to."""
    kind = TREE.get(str(trailing.get("shoal-error", "")), _KINDS.get(code, ShoalError))
    hint = trailing.get("shoal-hint-bin", b"")
    raised = kind(message, hint=hint.decode(errors="replace") if isinstance(hint, bytes) else hint)
    exit_code = str(trailing.get("shoal-exit-code", ""))
    if exit_code.isascii() and exit_code.isdigit():
        raised.exit_code = int(exit_code)
    return raised
