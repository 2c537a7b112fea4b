"""The error tree. Each error has a gRPC status; its message says what failed, on what, with which value, and the
hint says what to do instead.

    ShoalError                     internal
    ├── InvalidArgument            a value that can never be right
    ├── NotFound                   a thing that is not there
    ├── Conflict                   a thing that is in the way: in use, exists already, newer version
    ├── PermissionDenied           the caller may not
    ├── Unavailable                try again later, or elsewhere
    │   └── Locked                 a manager that waits for its unlock key
    ├── Unsupported                refused by name
    ├── Exhausted                  no more of it: disk, addresses, ports
    ├── DeadlineExceeded
    └── StartFailed                a container's process could not be started
        ├── CommandNotExecutable   126
        ├── CommandNotFound        127
        ├── SettingNotFound        127; what is to be set for it is not there: a sysctl
        └── SourceNotFound         127; what the host is to give it is not there: a device, a volume's folder
    Compacted                      store: the revision asked for is gone; read again

A command that fails ends with 1 (`exit_code`), whatever failed, as docker's do. `run` cannot, for 1 may be its
container's own: it ends with `run_code`, 125 but for the numbers above. What cannot be read as a command line has
codes of its own, in the client's `cli.grammar`.

On the wire an error travels as the status code, the message as details, and `shoal-error` and `shoal-hint-bin` in the
trailing metadata: `trailing_of` and `of_status`, whatever carries it (`shoal.rpc`, `shoal.lane`).
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
    run_code = 125

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


class Exhausted(ShoalError):
    code = Code.RESOURCE_EXHAUSTED


class DeadlineExceeded(ShoalError):
    code = Code.DEADLINE_EXCEEDED


class StartFailed(ShoalError):
    pass


class CommandNotExecutable(StartFailed):
    run_code = 126


class CommandNotFound(StartFailed):
    run_code = 127


class SettingNotFound(StartFailed):
    """docker tells it by the same code as a command that is not found."""

    run_code = 127


class SourceNotFound(StartFailed):
    """docker's `run` tells it by the same code, too; the container's state does not."""

    run_code = 127


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
        SettingNotFound,
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
    )


def of_status(code: int, message: str, trailing: Mapping[str, str | bytes]) -> ShoalError:
    """The error that a server raised, or what the failure of the call itself comes to."""
    kind = TREE.get(str(trailing.get("shoal-error", "")), _KINDS.get(code, ShoalError))
    hint = trailing.get("shoal-hint-bin", b"")
    return kind(message, hint=hint.decode(errors="replace") if isinstance(hint, bytes) else hint)
