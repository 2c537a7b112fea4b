"""Signals as docker spells them: "TERM", "SIGTERM", "15", "RTMIN+3". Pure."""

from __future__ import annotations

import signal

from shoal.errors import InvalidArgument

_NAMES = {each.name.removeprefix("SIG"): int(each) for each in signal.Signals}
_RTMIN, _RTMAX = 34, 64
DEFAULT_STOP = "SIGTERM"
KILL = int(signal.SIGKILL)


def signal_number(word: str) -> int:
    """Raises InvalidArgument ("Invalid signal: X")."""
    name = word.strip().upper().removeprefix("SIG")
    if name.isascii() and name.isdigit() and 0 < int(name) <= _RTMAX:
        return int(name)
    if name in _NAMES:
        return _NAMES[name]
    for base, sign in (("RTMIN+", 1), ("RTMAX-", -1)):
        offset = name.removeprefix(base)
        if offset != name and offset.isascii() and offset.isdigit():
            number = (_RTMIN if sign > 0 else _RTMAX) + sign * int(offset)
            if _RTMIN <= number <= _RTMAX:
                return number
    raise InvalidArgument(f"Invalid signal: {word}", hint="give a name such as SIGTERM or a number from 1 to 64")
