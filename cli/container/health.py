"""The flags of health checks, which containers and services share."""

from typing import Annotated, Any

from cli.command import Flags, flag, switch
from cli.parse.number import natural
from shoal.duration import duration
from shoal.errors import InvalidArgument
from shoal.v1.types_pb2 import HealthCheck


def _span(name: str, help: str) -> Any:
    return flag(name, metavar="duration", parse=duration, help=help)


class HealthFlags(Flags):
    """What is not given is the image's."""

    health_cmd: Annotated[str | None, flag("--health-cmd", help="Command to run to check health")] = None
    health_interval: Annotated[int, _span("--health-interval", "Time between running the check (default 30s)")] = 0
    health_timeout: Annotated[
        int, _span("--health-timeout", "Maximum time to allow one check to run (default 30s)")
    ] = 0
    health_retries: Annotated[
        int,
        flag("--health-retries", metavar="int", parse=natural, help="Consecutive failures needed to report unhealthy"),
    ] = 0
    health_start_period: Annotated[
        int, _span("--health-start-period", "Start period for the container to initialize before counting retries")
    ] = 0
    health_start_interval: Annotated[
        int, _span("--health-start-interval", "Time between running the check during the start period (default 5s)")
    ] = 0
    no_healthcheck: Annotated[bool, switch("--no-healthcheck", help="Disable any container-specified HEALTHCHECK")] = (
        False
    )


def health_check(flags: HealthFlags) -> HealthCheck:
    """Raises InvalidArgument for flags that contradict each other."""
    check = HealthCheck(
        test=_test(flags.health_cmd),
        interval_ns=flags.health_interval,
        timeout_ns=flags.health_timeout,
        retries=flags.health_retries,
        start_period_ns=flags.health_start_period,
        start_interval_ns=flags.health_start_interval,
    )
    if not flags.no_healthcheck:
        return check
    if check != HealthCheck() or flags.health_cmd is not None:
        raise InvalidArgument("--no-healthcheck conflicts with --health-* options")
    return HealthCheck(test=["NONE"])


def _test(command: str | None) -> list[str]:
    if command is None:
        return []
    return ["CMD-SHELL", command] if command.strip() else []
