"""An image as `docker image inspect` shows it."""

from __future__ import annotations

from typing import Any

from cli.document.common import by_key, graph_driver, health_check
from cli.output.unsaid import NullMap, listed, mapped, said
from cli.output.words import rfc3339
from shoal.v1.engine_pb2 import Folders
from shoal.v1.types_pb2 import Image

NO_FOLDERS = Folders()


def document(image: Image, folders: Folders = NO_FOLDERS) -> dict[str, Any]:
    """`folders`: where its layers are on its host."""
    config = image.config
    return {
        "Id": image.meta.id,
        "RepoTags": list(image.tags),
        "RepoDigests": list(image.digests),
        "Parent": image.parent,
        "Comment": image.comment,
        "Created": rfc3339(image.meta.created_at_ns),
        "Author": image.author,
        "Config": {
            "User": config.user,
            "ExposedPorts": said({each: {} for each in config.exposed_ports}),
            "Env": listed(config.env),
            "Cmd": listed(config.cmd),
            "Volumes": mapped({each: {} for each in config.volumes}),
            "WorkingDir": config.workdir,
            "Entrypoint": listed(config.entrypoint),
            "OnBuild": listed(config.on_build),
            "Labels": by_key(config.labels) or NullMap(),
            "StopSignal": said(config.stop_signal),
            **health_check(config.health),
            **({"Shell": list(config.shell)} if config.shell else {}),
        },
        "Architecture": image.architecture,
        "Os": image.os,
        "Size": image.size_bytes,
        "GraphDriver": graph_driver(folders),
        "RootFS": {"Type": "layers", "Layers": list(image.diff_ids)},
        "Descriptor": {"digest": image.manifest_digest},
    }
