"""Every flag that docker has here is either done or refused by name; none is unknown, none is both."""

from __future__ import annotations

import pytest

from cli.command import Command
from cli.refused import refusal
from cli.service.change import create, update

_BOTH = """
    --cap-add --cap-drop --credential-spec --detach --endpoint-mode --entrypoint --health-cmd --health-interval
    --health-retries --health-start-interval --health-start-period --health-timeout --hostname --init --isolation
    --limit-cpu --limit-memory --limit-pids --log-driver --log-opt --max-concurrent --no-healthcheck --no-resolve-image
    --oom-score-adj --quiet --read-only --replicas --replicas-max-per-node --reserve-cpu --reserve-memory
    --restart-condition --restart-delay --restart-max-attempts --restart-window --rollback-delay
    --rollback-failure-action --rollback-max-failure-ratio --rollback-monitor --rollback-order --rollback-parallelism
    --stop-grace-period --stop-signal --tty --update-delay --update-failure-action --update-max-failure-ratio
    --update-monitor --update-order --update-parallelism --user --with-registry-auth --workdir
"""
_LISTS = (
    "config constraint container-label dns dns-option dns-search env generic-resource group host label mount network"
)
_CREATE = "--env-file --mode --name --placement-pref --publish --secret --sysctl --ulimit"
_UPDATE = "--args --force --image --rollback"


def docker_flags(verb: str) -> list[str]:
    if verb == "create":
        return [*_BOTH.split(), *(f"--{each}" for each in _LISTS.split()), *_CREATE.split()]
    lists = [*_LISTS.split(), "placement-pref", "publish", "secret", "sysctl", "ulimit"]
    return [*_BOTH.split(), *(f"--{each}-{how}" for each in lists for how in ("add", "rm")), *_UPDATE.split()]


@pytest.mark.parametrize(("verb", "function"), [("create", create), ("update", update)])
def test_flags_are_done_or_refused(verb: str, function: object) -> None:
    done = {name for each in Command(f"shoal service {verb}", function).reader.flags for name in each.names}  # type: ignore[arg-type]
    refused = {flag for flag in docker_flags(verb) if refusal(f"service {verb}", flag)}
    assert not done & refused
    assert not set(docker_flags(verb)) - done - refused
