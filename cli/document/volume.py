"""A volume as `docker volume inspect` shows it."""

from __future__ import annotations

from typing import Any

from cli.document.common import by_key
from cli.output.words import rfc3339
from shoal.v1.types_pb2 import Volume


def document(volume: Volume) -> dict[str, Any]:
    return {
        "CreatedAt": rfc3339(volume.meta.created_at_ns),
        "Driver": volume.driver or "local",
        "Labels": by_key(volume.labels),
        "Mountpoint": volume.mountpoint,
        "Name": volume.name,
        "Options": by_key(volume.options),
        "Scope": "local",
    }
