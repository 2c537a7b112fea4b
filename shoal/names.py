"""Names: which are allowed, and which we make up."""

from __future__ import annotations

import re
from collections.abc import Callable, Container

from shoal.errors import InvalidArgument

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_SERVICE = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9_-]*[a-zA-Z0-9])?")
# vendor.com/class=name, of the Container Device Interface
_DEVICE = re.compile(
    r"[a-zA-Z](?:[a-zA-Z0-9_.-]*[a-zA-Z0-9])?/[a-zA-Z](?:[a-zA-Z0-9_.-]*[a-zA-Z0-9])?"
    r"=[a-zA-Z0-9](?:[a-zA-Z0-9_.:-]*[a-zA-Z0-9])?"
)


def _words(text: str) -> list[str]:
    return text.split()


_MOODS = _words("""
    amber bold brave bright brisk calm candid clever coral crisp daring deft eager fair fleet fluent gallant
    gentle glad golden hardy honest humble jolly keen kind lively lucid lucky mellow merry mighty modest
    nimble noble patient plucky polite proud quick quiet ready silver sleek snappy solid spry steady stoic
    sunny swift tidal tidy upbeat vivid warm wise witty young zesty
""")
_FISH = _words("""
    anchovy barbel bass beluga bonito bream brill carp catfish char cod conger dab dace dory eel flounder
    garfish goby grayling grouper gudgeon gurnard haddock hake halibut herring huchen ling loach mackerel
    marlin minnow moray mullet perch pike pilchard plaice pollock ray roach rudd salmon sardine saury seabass
    shad skate smelt snapper sole sprat sturgeon sunfish tarpon tench trout tuna turbot wels wrasse zander
""")


def check_name(name: str, kind: str) -> None:
    """Docker's rule: a letter or digit, then more of those, dots, dashes and underscores; a network's may be one
    character long, all others are at least two."""
    if not _NAME.fullmatch(name) or (len(name) < 2 and kind != "network"):
        raise InvalidArgument(
            f"Invalid {kind} name ({printable(name)}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed",
            hint="" if len(name) > 1 or kind == "network" else "it needs at least two characters",
        )


def link_parts(text: str) -> tuple[str, str]:
    """(container, alias) of "NAME[:ALIAS]"; without an alias it is called as it is. Raises InvalidArgument."""
    name, colon, alias = text.partition(":")
    if not name or (colon and not alias) or ":" in alias:
        raise InvalidArgument(f"bad format for links: {text}", hint="it looks like db or db:alias")
    return name.removeprefix("/"), alias or name.removeprefix("/")


def check_service_name(name: str) -> None:
    """A service's name is a DNS label too: at most 63 characters, no dots, no hyphen or underscore at an end."""
    if len(name) > 63 or not _SERVICE.fullmatch(name):
        raise InvalidArgument(
            f"Invalid service name ({printable(name)}), only [a-zA-Z0-9_-] are allowed, at most 63 of them",
            hint="begin and end it with a letter or a digit",
        )


def is_device_name(text: str) -> bool:
    """Whether it names a device by vendor, class and name, as `nvidia.com/gpu=0`, and not by a path."""
    return _DEVICE.fullmatch(text) is not None


def random_name(taken: Container[str], chance: Callable[[], float]) -> str:
    """A free "mood_fish"; with a number once the plain ones are rare."""
    for attempt in range(1000):
        name = f"{_pick(_MOODS, chance)}_{_pick(_FISH, chance)}"
        if attempt > 20:
            name += str(int(chance() * 10**6))
        if name not in taken:
            return name
    raise InvalidArgument("no free name could be made up", hint="give one with --name")


def printable(text: str) -> str:
    """`text` with control characters made visible, so that a name cannot drive somebody's terminal."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _pick(words: list[str], chance: Callable[[], float]) -> str:
    return words[int(chance() * len(words)) % len(words)]
