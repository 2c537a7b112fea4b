"""What of a container's lines does not stand in JSON as it is: found and replaced by the block.

Most lines need none of it, so they are looked through by what is fastest at finding nothing. The rest of a line's
quoting is `logfile`'s.
"""

from __future__ import annotations

import ctypes
from codecs import utf_8_decode
from json.encoder import encode_basestring as quoted

_CONTROLS = bytes(each for each in range(1, 0x20) if each != 0x0A)  # the ends of lines stay
# For strcspn(3), which ends at 0 by itself: glibc looks for up to sixteen at once.
_SOUGHT = _CONTROLS[::2], _CONTROLS[1::2]
_strcspn = ctypes.CDLL(None).strcspn
_strcspn.argtypes, _strcspn.restype = [ctypes.c_char_p, ctypes.c_char_p], ctypes.c_size_t


def escaped(text: bytes) -> bytes | None:
    """In JSON, but for the ends of lines; None for what is no UTF-8. Its last character may be cut short."""
    if not text.isascii():
        try:
            utf_8_decode(text)
        except UnicodeDecodeError:
            return None
    text = text.replace(b"\\", b"\\\\").replace(b'"', b'\\"')  # the backslash first: the others' escapes have one
    for some in _SOUGHT:
        if _strcspn(text, some) < len(text):
            for each in (0, *some):
                text = text.replace(bytes((each,)), _escape(each))
    return text


def _escape(each: int) -> bytes:
    return quoted(chr(each))[1:-1].encode()
