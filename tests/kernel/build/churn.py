"""The program that `test_survival` kills: an agent that builds two images over and over, side by side, and prunes all
that nobody uses meanwhile.

Arguments: data folder, run folder, cgroup. Says a line for whatever happens.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from agent.build.builder import Builder
from agent.build.job import Job
from agent.build.report import Event
from agent.build.tree import Tree
from agent.container.containers import Containers
from agent.image.images import Images
from agent.network.networks import Networks
from agent.runtime.runtime import Runtime
from agent.volume.volumes import Volumes
from shoal import reference as references
from shoal.clock import SystemClock
from shoal.settings import Paths

UUID = "/proc/sys/kernel/random/uuid"
# The first step is both builds' own, and another one each time.
TEXT = f"FROM busybox\nRUN cat {UUID} > /when\nRUN head -c 300000 /dev/zero > /big && cat /when > /again\n"


async def main(paths: Paths, cgroup: str) -> None:
    runtime = await Runtime.open(run_dir=paths.run, cgroup_parent=cgroup)
    images = await Images.open(paths.images)
    networks = await Networks.open(data_dir=paths.data, run_dir=paths.run)
    volumes = await Volumes.open(paths.volumes)
    containers = await Containers.open(paths=paths, runtime=runtime, images=images, networks=networks, volumes=volumes)
    builder = await Builder.open(paths, images=images, runtime=runtime, networks=networks, clock=SystemClock())
    await asyncio.gather(build(builder, "one"), build(builder, "two"), prune(builder, images, containers))


async def build(builder: Builder, name: str) -> None:
    tags = (references.parse(f"{name}:latest"),)
    while True:
        text = f"{TEXT}LABEL of={name}\n"
        await builder.build(Job(dockerfile=text, name="Dockerfile", tree=Tree(()), tags=tags), tell)


async def tell(event: Event) -> None:
    print(type(event).__name__, flush=True)


async def prune(builder: Builder, images: Images, containers: Containers) -> None:
    while True:
        await builder.prune(unused_s=0)
        await images.prune(all=False, chosen=lambda _: True, users=containers.image_users)
        print("pruned", flush=True)


if __name__ == "__main__":
    asyncio.run(main(Paths(data=Path(sys.argv[1]), run=Path(sys.argv[2])), sys.argv[3]))
