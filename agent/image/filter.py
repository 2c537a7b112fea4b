"""`images [REPOSITORY[:TAG]] --filter key=value`: docker's filters over images. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import msgspec

from shoal import reference as references
from shoal.errors import InvalidArgument
from shoal.model.image import Image
from shoal.pattern import segment_regex

_KEYS = ("before", "dangling", "label", "reference", "since")


def selected(
    images: Sequence[Image],
    reference: str,
    filters: Sequence[tuple[str, str]],
    *,
    find: Callable[[str], Image],
) -> list[Image]:
    """The images that match, in their order, with only the names that match. `find` resolves what `before` and
    `since` name. Several values: of `label` all must match, of the others any. Raises InvalidArgument."""
    wanted: dict[str, list[str]] = {}
    for key, value in filters:
        if key not in _KEYS:
            raise InvalidArgument(f"invalid filter '{key}'", hint=f"known are {', '.join(_KEYS)}")
        wanted.setdefault(key, []).append(value)
    texts = ([reference] if reference else []) + wanted.pop("reference", [])
    patterns = [re.compile(segment_regex(each), re.DOTALL) for each in texts]
    kept = [each for each in images if all(_matches(each, key, values, find) for key, values in wanted.items())]
    if not patterns:
        return kept
    narrowed = (_narrowed(each, patterns) for each in kept)
    return [each for each in narrowed if each.tags or each.digests]


def _matches(image: Image, key: str, values: list[str], find: Callable[[str], Image]) -> bool:
    if key == "dangling":
        return any(_truth(value) == (not image.tags and not image.digests) for value in values)
    if key == "label":
        return all(_has_label(image, value) for value in values)
    at_ns = image.meta.created_at_ns
    others = [find(value).meta.created_at_ns for value in values]
    return any(at_ns < other for other in others) if key == "before" else any(at_ns > other for other in others)


def _truth(value: str) -> bool:
    if value.lower() not in ("true", "1", "false", "0"):
        raise InvalidArgument(f"invalid filter 'dangling={value}'", hint="write dangling=true or dangling=false")
    return value.lower() in ("true", "1")


def _has_label(image: Image, wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    found = image.config.labels.get(key)
    return found is not None and (not equals or found == value)


def _narrowed(image: Image, patterns: list[re.Pattern[str]]) -> Image:
    def kept(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(name for name in names if any(_names(name, pattern) for pattern in patterns))

    return msgspec.structs.replace(image, tags=kept(image.tags), digests=kept(image.digests))


def _names(name: str, pattern: re.Pattern[str]) -> bool:
    """docker's rule: the pattern is a repository, or a whole reference; `*` stops at slashes (Go's path.Match)."""
    parsed = references.parse(name)
    return any(map(pattern.fullmatch, (parsed.familiar, parsed.familiar_name, parsed.canonical, parsed.name)))
