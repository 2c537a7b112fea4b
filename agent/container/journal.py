"""The host's journal as a log (`--log-driver journald`): what each entry says of its container, and how it is read.

The keeper writes it (`agent.runtime.journal`); systemd's own `journalctl` reads it, since the format of its files is
systemd's. Entries come back in the journal's order with the journal's times.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec

from agent.container.logs import LogLine, Window
from agent.runtime.journal import SOCKET
from shoal import command, ids
from shoal.clock import Clock
from shoal.errors import InvalidArgument, Unsupported
from shoal.model.container import Container, LogConfig

DRIVER = "journald"
_OPTIONS = ("tag", "labels", "env")
_WORD = re.compile(r"{{\s*\.(\w+)\s*}}")
_STDERR = "3"
_LOOK_S = 0.25


def check_options(log: LogConfig) -> None:
    """Raises InvalidArgument for what the driver does not know."""
    for name in log.options:
        if name not in _OPTIONS:
            raise InvalidArgument(f"unknown log opt '{name}' for journald log driver")
    _tag(log.options.get("tag", ""), {})


def check_host() -> None:
    """Raises Unsupported where there is no journal."""
    if not Path(SOCKET).is_socket():
        raise Unsupported(
            "failed to initialize logging driver: journald is not enabled on this host",
            hint="use json-file or local, or start systemd-journald",
        )


def fields(container: Container) -> dict[str, str]:
    """As docker's driver names them; labels and variables that were asked for under their own names."""
    spec, full = container.spec, container.meta.id
    words = {"ID": ids.short(full), "FullID": full, "Name": container.name, "ImageName": spec.image}
    tag = _tag(spec.log.options.get("tag", ""), words)
    environment = dict(each.partition("=")[::2] for each in container.env)
    extra = {
        _name(key): known[key]
        for option, known in (("labels", spec.labels), ("env", environment))
        for key in spec.log.options.get(option, "").split(",")
        if key in known
    }
    return extra | {
        "CONTAINER_ID": ids.short(full),
        "CONTAINER_ID_FULL": full,
        "CONTAINER_NAME": container.name,
        "CONTAINER_TAG": tag,
        "IMAGE_NAME": spec.image,
        "SYSLOG_IDENTIFIER": tag,
    }


def _tag(text: str, words: dict[str, str]) -> str:
    """Docker's template, as far as its words are these."""

    def word(found: re.Match[str]) -> str:
        if found[1] not in ("ID", "FullID", "Name", "ImageName"):
            raise InvalidArgument(
                f"log opt tag: {found[0]} is not known", hint="there are .ID .FullID .Name .ImageName"
            )
        return words.get(found[1], "")

    if "{{" in _WORD.sub("", text):
        raise InvalidArgument(f"log opt tag: {text!r} is no template of ours", hint="it looks like {{.Name}}")
    return _WORD.sub(word, text or "{{.ID}}")


def _name(key: str) -> str:
    """As a field of the journal: capitals, digits and underscores."""
    return re.sub(r"[^A-Z0-9_]", "_", key.upper()).lstrip("_")


class _Entry(msgspec.Struct):
    cursor: str = msgspec.field(name="__CURSOR")
    time_us: str = msgspec.field(name="__REALTIME_TIMESTAMP")
    # a list of numbers where it is no text
    message: str | list[int] | None = msgspec.field(name="MESSAGE", default=None)
    priority: str = msgspec.field(name="PRIORITY", default="")
    partial: str = msgspec.field(name="CONTAINER_PARTIAL_MESSAGE", default="")


async def batches(
    container_id: str, window: Window, *, clock: Clock, following: Callable[[], bool]
) -> AsyncIterator[list[LogLine]]:
    """As `logs.batches`. Raises Unsupported on a host without journalctl."""
    program = shutil.which("journalctl", path="/usr/bin:/bin")
    if program is None:
        raise Unsupported("reading a journal needs journalctl on the container's host", hint="install systemd")
    argv = [program, "--quiet", "--no-pager", "--all", "--output", "json", f"CONTAINER_ID_FULL={container_id}"]
    if window.until_ns:
        argv.append(f"--until=@{window.until_ns / 1e9:.6f}")
    bounds = [] if window.tail is None else [f"--lines={window.tail}"]
    if window.since_ns:
        bounds.append(f"--since=@{window.since_ns / 1e9:.6f}")
    while True:
        more = following()
        found = (await command.run([*argv, *bounds])).stdout
        entries = [msgspec.json.decode(line, type=_Entry) for line in found.splitlines()]
        if entries:
            bounds = [f"--after-cursor={entries[-1].cursor}"]
            yield [_line(each) for each in entries]
        elif not more or 0 < window.until_ns < clock.now_ns():
            return
        else:
            await clock.sleep(_LOOK_S)


def _line(entry: _Entry) -> LogLine:
    message = entry.message if entry.message is not None else ""
    data = message.encode("utf-8", "surrogatepass") if isinstance(message, str) else bytes(message)
    end = b"" if entry.partial else b"\n"
    return LogLine(at_ns=int(entry.time_us) * 1000, stderr=entry.priority == _STDERR, data=data + end)
