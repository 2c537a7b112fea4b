"""What becomes of a build: `--output`, `--secret`, `--build-arg` as values."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from shoal.errors import InvalidArgument, NotFound, Unsupported

_KINDS = {"local": "local", "tar": "tar", "oci": "archive", "docker": "archive", "cacheonly": "none"}


class Output(NamedTuple):
    """`kind` is image, local (files in the folder `target`), tar (of those files) or archive (of the image; both in the
    file `target`, "-" for stdout), push (the image, to where its tags say) or none."""

    kind: str = "image"
    target: str = ""

    @property
    def wire(self) -> str:
        """What the agent is asked for."""
        return {"local": "tar", "push": "image"}.get(self.kind, self.kind)


def output(texts: Iterable[str]) -> Output:
    """`type=local,dest=out`, or for short `out`, or `-`."""
    wanted = [*texts]
    if len(wanted) > 1:
        raise Unsupported("several --output are not supported", hint="build once for each; the steps are kept")
    if not wanted:
        return Output()
    text = wanted[0]
    if "=" not in text:
        return Output("tar", "-") if text == "-" else Output("local", text)
    fields = fields_of(text, ("type", "dest", "push"), "output")
    kind, target = fields.get("type", ""), fields.get("dest", "")
    pushed = fields.get("push", "false") == "true"
    if pushed and kind != "image":
        raise InvalidArgument(f"push=true says nothing of type={kind}", hint="it is for type=image")
    if kind == "registry" or pushed:
        return Output("push")
    if kind == "image" or (kind == "docker" and not target):
        return Output()
    if kind not in _KINDS:
        raise InvalidArgument(f"invalid output type {kind!r}", hint=f"use {', '.join(('image', 'registry', *_KINDS))}")
    if not target and kind == "local":
        raise InvalidArgument("output directory is required for local exporter", hint="add dest=FOLDER")
    return Output(_KINDS[kind], "" if kind == "cacheonly" else target or "-")


def secrets(texts: Iterable[str], own: Mapping[str, str]) -> dict[str, bytes]:
    """`id=NAME,src=FILE` or `id=NAME,env=VARIABLE`; with the id alone the variable of that name, else that file."""
    found = {}
    for text in texts:
        fields = fields_of(text, ("id", "src", "source", "env", "type"), "secret")
        name = fields.get("id", "")
        path, variable = fields.get("src") or fields.get("source") or "", fields.get("env", "")
        if not name:
            raise InvalidArgument(f"secret {text!r} has no id", hint="write id=NAME,src=FILE")
        if fields.get("type") == "env" and not variable:
            variable, path = path or name, ""
        if not path and not variable:
            variable, path = (name, "") if name in own else ("", name)
        found[name] = _value(name, path, variable, own)
    return found


def _value(name: str, path: str, variable: str, own: Mapping[str, str]) -> bytes:
    if variable:
        if variable not in own:
            raise NotFound(f"secret {name}: there is no environment variable {variable}")
        return own[variable].encode(errors="surrogateescape")
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise NotFound(f"secret {name}: open {path}: {(error.strerror or str(error)).lower()}") from error


def arguments(texts: Iterable[str], own: Mapping[str, str]) -> dict[str, str]:
    """`NAME=VALUE`; a NAME alone is taken from the environment, or left out."""
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name:
            raise InvalidArgument(f"invalid build argument {text!r}")
        if equals or name in own:
            found[name] = value if equals else own[name]
    return found


def epoch(given: Mapping[str, str], own: Mapping[str, str]) -> int | None:
    """SOURCE_DATE_EPOCH as a build argument, else of the environment."""
    text = given.get("SOURCE_DATE_EPOCH", own.get("SOURCE_DATE_EPOCH", ""))
    if not text:
        return None
    if not text.isdecimal() or len(text) > 11:
        raise InvalidArgument(f"invalid SOURCE_DATE_EPOCH {text!r}", hint="it is a number of seconds")
    return int(text)


def fields_of(text: str, known: tuple[str, ...], what: str) -> dict[str, str]:
    """`name=value,…` with names that are known. Raises InvalidArgument."""
    found = {}
    for field in next(csv.reader([text]), []):
        name, equals, value = field.partition("=")
        if not equals or name.lower() not in known:
            raise InvalidArgument(f"invalid field {field!r} of --{what}", hint=f"there are {', '.join(known)}")
        found[name.lower()] = value
    return found
