"""`kill`, `delete`, `pause`, `resume` and `update`: what is done to a container that is there."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from agent.runtime.cgroups.group import Groups
from agent.runtime.failure import Failure
from agent.runtime.oci import hooks
from agent.runtime.oci.arguments import LIMITS, Options, usage
from agent.runtime.oci.record import CREATED, PAUSED, RUNNING, STOPPED, Place, group_of, state, status
from agent.runtime.oci.report import Report
from agent.runtime.spec.resources import parse_limits

_UNITS = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_TEXTS = ("--cpuset-cpus", "--cpuset-mems")


def kill(place: Place, number: int, *, everyone: bool) -> None:
    """Signal the first process, or all of them. Raises Conflict when nothing is there to signal."""
    record, groups = place.load(), Groups()
    condition = status(place, record, groups)
    if everyone:
        for pid in group_of(record, groups).pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return
    if condition not in (RUNNING, CREATED, PAUSED):
        raise Failure("Conflict", f"container not running: {place.id} is {condition}")
    with contextlib.suppress(ProcessLookupError):
        os.kill(record.pid, number)
    if number == signal.SIGKILL and not record.own_pids:
        group_of(record, groups).kill()  # others of a shared pid namespace outlive the first process


def delete(place: Place, report: Report, *, force: bool) -> None:
    """Remove what a container left. Idempotent with `force`, which kills what runs."""
    if force and not place.path.exists():
        return
    with place.locked():
        try:
            record = place.load()
        except Failure:
            if not force:
                raise
            place.remove()  # a create that was killed before it had written anything
            return
        groups = Groups()
        condition = status(place, record, groups)
        if not force and condition not in (STOPPED, CREATED):
            raise Failure(
                "Conflict", f"cannot delete container {place.id} that is not stopped: {condition}", "or use --force"
            )
        group = group_of(record, groups)
        group.kill()
        group.remove()
        config = place.config() if (place.path / "config.json").exists() else None
        place.remove()
    if config is not None:
        try:
            hooks.of(config, "poststop", lambda: state(record, STOPPED))
        except Failure as error:
            report.warning(error.message)


def freeze(place: Place, *, frozen: bool) -> None:
    """Pause or resume. Raises Conflict when it is not to be had now."""
    with place.locked():
        record, groups = place.load(), Groups()
        condition = status(place, record, groups)
        wanted = (RUNNING, CREATED) if frozen else (PAUSED,)
        if condition not in wanted:
            raise Failure(
                "Conflict", f"cannot {'pause' if frozen else 'resume'} a container that is {condition}: {place.id}"
            )
        group = group_of(record, groups)
        if frozen:
            group.freeze()
        else:
            group.thaw()


def update(place: Place, options: Options) -> None:
    """Other limits: those that are named, the others stay. They are on record before they hold."""
    with place.locked():
        record, groups = place.load(), Groups()
        condition = status(place, record, groups)
        if condition == STOPPED:
            raise Failure("Conflict", f"cannot update a container that is stopped: {place.id}")
        config = place.config()
        resources = _merged((config.get("linux") or {}).get("resources") or {}, _wanted(options))
        limits = parse_limits(resources)
        config.setdefault("linux", {})["resources"] = resources
        place.save_config(config)
        groups.change(group_of(record, groups), limits)


def _wanted(options: Options) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if options.text("--resources"):
        path = options.text("--resources")
        try:
            found = json.loads(sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise Failure("InvalidArgument", f"{path}: {error}") from error
    for option, (part, field) in LIMITS.items():
        text = options.text(option)
        if text:
            found.setdefault(part, {})[field] = text if option in _TEXTS else _amount(option, text)
    return found


def _amount(option: str, text: str) -> int:
    digits, unit = (text[:-1], _UNITS[text[-1].lower()]) if text[-1].lower() in _UNITS else (text, 1)
    try:
        return int(digits) * unit
    except ValueError:
        raise usage(f"{option} takes a number, not {text!r}") from None


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """`new` over `old`, part by part; of what a driver sends, null and an empty part say nothing."""
    merged = dict(old)
    for part, value in new.items():
        if isinstance(value, dict):
            merged[part] = {
                **(old.get(part) or {}),
                **{name: field for name, field in value.items() if field is not None},
            }
        elif value:
            merged[part] = value
    return merged
