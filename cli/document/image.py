"""An image as `docker image inspect` shows it."""

from __future__ import annotations

from typing import Any

from cli.document.common import health_check
from cli.output.words import rfc3339
from shoal.v1.types_pb2 import Image


def document(image: Image) -> dict[str, Any]:
    config = image.config
    return {
        "Id": image.meta.id,
        "RepoTags": list(image.tags),
        "RepoDigests": list(image.digests),
        "Parent": "",
        "Comment": image.comment,
        "Created": rfc3339(image.meta.created_at_ns),
        "Author": image.author,
        "Config": {
            "User": config.user,
            "ExposedPorts": {each: {} for each in config.exposed_ports},
            "Env": list(config.env),
            "Cmd": list(config.cmd) or None,
            "Volumes": {each: {} for each in config.volumes},
            "WorkingDir": config.workdir,
            "Entrypoint": list(config.entrypoint) or None,
            "OnBuild": list(config.on_build) or None,
            "Labels": dict(config.labels),
            "StopSignal": config.stop_signal,
            **health_check(config.health),
            **({"Shell": list(config.shell)} if config.shell else {}),
        },
        "Architecture": image.architecture,
        "Os": image.os,
        "Size": image.size_bytes,
        "RootFS": {"Type": "layers", "Layers": list(image.diff_ids)},
        "Descriptor": {"digest": image.manifest_digest},
    }
