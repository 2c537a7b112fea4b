"""The program that `test_restore` kills: an agent that makes, starts, stops and removes containers without end.

Arguments: data folder, run folder, cgroup. Says "ready" once it begins.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from agent.container.containers import Containers
from agent.image.images import Images
from agent.network.networks import Networks
from agent.runtime.runtime import Runtime
from agent.volume.volumes import Volumes
from shoal.model.container import Container, ContainerSpec, Mount, RestartCondition, RestartPolicy
from shoal.model.network import Port
from shoal.settings import Paths


async def main(paths: Paths, cgroup: str) -> None:
    containers = await Containers.open(
        paths=paths,
        runtime=await Runtime.open(run_dir=paths.run, cgroup_parent=cgroup),
        images=await Images.open(paths.images),
        networks=await Networks.open(data_dir=paths.data, run_dir=paths.run),
        volumes=await Volumes.open(paths.volumes),
    )
    print("ready", flush=True)
    await asyncio.gather(*(churn(containers, number) for number in range(3)))


async def churn(containers: Containers, number: int) -> None:
    while True:
        spec = ContainerSpec(image="busybox", args=("sleep", "100"), mounts=(Mount(target="/srv/data"),))
        wanted = Container(
            name=f"churn{number}",
            spec=spec,
            auto_remove=number == 0,
            restart=RestartPolicy(condition=RestartCondition.ANY) if number == 1 else RestartPolicy(),
            ports=(Port(target=80),),
        )
        await containers.create(wanted)
        await containers.start(wanted.name)
        if number:
            await containers.stop(wanted.name, timeout_s=0)
            await containers.start(wanted.name)
        await containers.remove(wanted.name, force=True, volumes=True)


asyncio.run(main(Paths(data=Path(sys.argv[1]), run=Path(sys.argv[2])), sys.argv[3]))
