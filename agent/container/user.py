"""Who a container's process is: `USER` and `--user`, `--group-add` turned into ids by the image's own passwd and
group files, with docker's rules and words. Pure text in, ids out; `agent.container.rootview` reads the files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from shoal.errors import StartFailed

PASSWD = "/etc/passwd"
GROUP = "/etc/group"
_MAX_ID = (1 << 31) - 1


class User(msgspec.Struct, frozen=True):
    """`groups` are the supplementary ones, the primary first (as docker since CVE-2022-2989)."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    home: str = "/"


class _Account(msgspec.Struct, frozen=True):
    name: str
    uid: int
    gid: int
    home: str


class _Group(msgspec.Struct, frozen=True):
    name: str
    gid: int
    members: tuple[str, ...]


def user_of(wanted: str, *, passwd: bytes, group: bytes, extra_groups: Sequence[str] = ()) -> User:
    """The user that `wanted` ("", "name", "uid", either with ":group") means.

    Numbers need no entry. Raises StartFailed for a name that the files do not have and an id out of range.
    """
    user_word, _, group_word = wanted.partition(":")
    accounts = list(_accounts(passwd))
    groups = list(_groups(group))
    account = _account(user_word or "0", accounts)
    uid, gid, home = account.uid, account.gid, account.home or "/"
    more: list[int] = []
    if group_word:
        gid = _group_id(group_word, groups)
    elif account.name:
        more = [each.gid for each in groups if account.name in each.members]
    more += [_group_id(each, groups) for each in extra_groups]
    return User(uid=uid, gid=gid, groups=tuple(dict.fromkeys([gid, *more])), home=home)


def _account(word: str, accounts: list[_Account]) -> _Account:
    number = _number(word)
    for each in accounts:
        if each.name == word or each.uid == number:
            return each
    if number is None:
        raise StartFailed(f"unable to find user {word}: no matching entries in passwd file")
    return _Account(name="", uid=_in_range(number), gid=0, home="/")


def _group_id(word: str, groups: list[_Group]) -> int:
    for each in groups:
        if each.name == word:
            return each.gid
    number = _number(word)
    if number is None:
        raise StartFailed(f"unable to find group {word}: no matching entries in group file")
    return _in_range(number)


def _number(word: str) -> int | None:
    return int(word) if word.isascii() and word.isdigit() else None


def _in_range(number: int) -> int:
    if number > _MAX_ID:
        raise StartFailed(f"uids and gids must be in range 0-{_MAX_ID}, not {number}")
    return number


def _accounts(passwd: bytes) -> Iterator[_Account]:
    """passwd(5); lines that are not an account are skipped, as the C library does."""
    for fields in _lines(passwd, 7):
        uid, gid = _number(fields[2]), _number(fields[3])
        if uid is not None and gid is not None:
            yield _Account(name=fields[0], uid=uid, gid=gid, home=fields[5])


def _groups(group: bytes) -> Iterator[_Group]:
    """group(5)."""
    for fields in _lines(group, 4):
        gid = _number(fields[2])
        if gid is not None:
            yield _Group(name=fields[0], gid=gid, members=tuple(each for each in fields[3].split(",") if each))


def _lines(data: bytes, least: int) -> Iterator[list[str]]:
    for line in data.decode(errors="replace").splitlines():
        fields = line.strip().split(":")
        if len(fields) >= least - 1 and not line.startswith("#"):
            yield fields + [""] * (least - len(fields))
