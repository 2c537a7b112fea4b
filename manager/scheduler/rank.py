"""Ranking: what a service says about which of the nodes that fit is best, beside how many tasks they have.

Placement preferences (`spread=node.labels.zone`) cut the candidates into branches, which are evened out level by
level; nodes that lack the label are one branch. Within a branch nodes where this version keeps failing come last.
"""

from __future__ import annotations

import functools
from collections import Counter

from manager.scheduler.load import Load
from shoal.errors import InvalidArgument
from shoal.model.service import Service

FAILURES = 5
FAILURES_WITHIN_NS = 5 * 60 * 1_000_000_000
_SPREAD = "spread="


@functools.lru_cache(maxsize=4096)
def spread_key(preference: str) -> str:
    """What a preference spreads over. Raises InvalidArgument for any other than a node's or engine's label."""
    text = "".join(preference.split())
    key = text.removeprefix(_SPREAD)
    if not text.startswith(_SPREAD) or not key.startswith(("node.labels.", "engine.labels.")):
        raise InvalidArgument(
            f"placement preference {preference!r} is unknown", hint="write it as spread=node.labels.NAME"
        )
    return key


def failing(load: Load, service: Service, now_ns: int) -> set[int]:
    """The places of nodes on which this version of the service has failed again and again."""
    failed = load.failed.get(service.meta.id)
    if not failed:
        return set()
    failures = Counter(
        task.node_id
        for task in failed.values()
        if task.task_version == service.task_version and task.since_ns(now_ns) > now_ns - FAILURES_WITHIN_NS
    )
    return {load.places[id] for id, count in failures.items() if count >= FAILURES and id in load.places}
