"""Copying: a COPY or ADD as typed values: what is taken, where it goes, whose it is then. Pure but for one look into
the image's passwd and group files."""

from __future__ import annotations

import posixpath

import msgspec

from agent.build import flags, transfer
from agent.build.flags import CopyFlags
from agent.build.parser import Heredoc, Instruction
from agent.build.placer import Order
from agent.build.state import State
from agent.container.launch import user_in
from agent.container.user import User
from agent.image.layer import Place
from shoal.errors import InvalidArgument, Unsupported


class Copying(msgspec.Struct, frozen=True):
    """A COPY or ADD. `target` ends with a slash where it must be a folder."""

    given: CopyFlags
    sources: tuple[str, ...]
    heredocs: tuple[Heredoc, ...]
    target: str
    owner: tuple[int, int] | None
    mode: int | None

    @property
    def parts(self) -> tuple[object, ...]:
        """What of it goes into a key, besides the content."""
        return (self.target, self.owner, self.mode, self.given.link, self.given.parents, len(self.sources) > 1)


def copying_of(found: Instruction, state: State, *, folders: tuple[str, ...]) -> Copying:
    """`folders`: the layers below, top first. Raises InvalidArgument."""
    whole = state.scope.whole
    given = flags.copy_flags(found, whole)
    said = [whole(each) for each in found.words if found.argv is not None or not _is_heredoc(each, found)]
    if len(said) + len(found.heredocs) < 2:
        raise InvalidArgument(f"{found.keyword} requires at least two arguments, but only {len(said)} were provided")
    *sources, target = said
    if len(sources) + len(found.heredocs) > 1 and not target.endswith("/") and target not in (".", "./"):
        raise InvalidArgument(
            f"When using {found.keyword} with more than one source file, "
            "the destination must be a directory and end with a /"
        )
    return Copying(
        given=given,
        sources=tuple(sources),
        heredocs=found.heredocs,
        target=_target(target, state.config.workdir),
        owner=_owner(given.chown, folders),
        mode=_mode(given.chmod),
    )


def _is_heredoc(word: str, found: Instruction) -> bool:
    return bool(found.heredocs) and word.lstrip("0123456789").startswith("<<")


def _target(target: str, workdir: str) -> str:
    path = posixpath.normpath(posixpath.join("/", workdir, target))
    folder = target.endswith(("/", "/.")) or target == "." or path == "/"
    return f"{path.rstrip('/')}/" if folder else path


def _owner(chown: str, folders: tuple[str, ...]) -> tuple[int, int] | None:
    """By the image's own passwd and group files; of a lone user the group has the same number."""
    if not chown:
        return None
    user = user_in(folders, chown, ()) if folders else _user_in_nothing(chown)
    name, colon, _ = chown.partition(":")
    gid = user.uid if not colon and name.isdecimal() else user.gid
    return user.uid, gid


def _user_in_nothing(wanted: str) -> User:
    """In an image without files numbers alone mean somebody."""
    name, _, group = wanted.partition(":")
    if not name.isdecimal() or (group and not group.isdecimal()):
        raise InvalidArgument(f"--chown={wanted}: the image has no /etc/passwd", hint="give numbers")
    return User(int(name), int(group or name))


def _mode(chmod: str) -> int | None:
    if not chmod:
        return None
    if not chmod.isdecimal() or not set(chmod) <= set("01234567") or len(chmod) > 5:
        raise Unsupported(f"--chmod={chmod} is not supported", hint="give it as a number: --chmod=755")
    return int(chmod, 8)


def order_of(place: Place, copying: Copying, *, several: bool, files: str = "") -> Order:
    """With `--link` what lies below is not looked at: its links are not followed, they are replaced."""
    if copying.given.link:
        place = msgspec.structs.replace(place, lower=())
    return transfer.order_of(
        place, copying.target, several=several, owner=copying.owner, mode=copying.mode, files=files
    )
