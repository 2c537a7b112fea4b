"""The arguments that every Dockerfile has without asking the user: of platforms, and of proxies. Pure.

https://docs.docker.com/reference/dockerfile/#automatic-platform-args-in-the-global-scope
"""

from __future__ import annotations

from agent.build.job import Job
from agent.build.state import PROXIES
from agent.image.platform import Platform

_PARTS = ("PLATFORM", "OS", "ARCH", "VARIANT")
PREDEFINED = frozenset((*PROXIES, *(f"{side}{part}" for side in ("BUILD", "TARGET") for part in _PARTS)))


def arguments(here: Platform, job: Job) -> dict[str, str]:
    """What is built for is what builds: this host."""
    values = (str(here), here.os, here.architecture, here.variant)
    found = {f"{side}{part}": value for side in ("BUILD", "TARGET") for part, value in zip(_PARTS, values, strict=True)}
    stage = {"TARGETSTAGE": job.target or "default"}
    epoch = {} if job.epoch is None else {"SOURCE_DATE_EPOCH": str(job.epoch)}
    return {**found, **stage, **epoch}
