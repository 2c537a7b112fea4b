"""What a service's tasks see of their hosts and may do there. Most of these flags docker has for containers alone."""

from typing import Annotated

from cli.command import Flags, flag, switch
from cli.parse import isolation as isolating
from cli.parse import size
from cli.parse.number import integer32
from shoal.errors import InvalidArgument
from shoal.v1.types_pb2 import DeviceMapping


def _without_containers(text: str) -> str:
    """A namespace's mode. On which host a task will be, and beside which container, nobody knows."""
    if text.startswith("container:"):
        raise InvalidArgument(f"a service cannot join a container's namespace: {text}")
    return text


class IsolationFlags(Flags):
    """What is one value, and what is given whole each time."""

    privileged: Annotated[
        bool | None,
        switch("--privileged", negative="--no-privileged", help="Give extended privileges to the service's containers"),
    ] = None
    security_opt: Annotated[list[str], flag("--security-opt", metavar="list", help="Security Options")] = []
    userns: Annotated[str | None, flag("--userns", help='User namespace to use ("host", "auto")')] = None
    pid: Annotated[str | None, flag("--pid", parse=_without_containers, help='PID namespace to use ("host")')] = None
    ipc: Annotated[
        str | None,
        flag("--ipc", parse=_without_containers, help='IPC mode to use ("private", "shareable", "host", "none")'),
    ] = None
    shm_size: Annotated[int | None, flag("--shm-size", metavar="bytes", parse=size.size, help="Size of /dev/shm")] = (
        None
    )
    oom_score_adj: Annotated[
        int | None,
        flag("--oom-score-adj", metavar="int", parse=integer32, help="Tune host's OOM preferences (-1000 to 1000)"),
    ] = None
    runtime: Annotated[str | None, flag("--runtime", help="Runtime to use for the service's containers")] = None
    log_driver: Annotated[
        str | None, flag("--log-driver", help='Logging driver for service ("json-file", "local", "journald", "none")')
    ] = None
    log_opt: Annotated[list[str], flag("--log-opt", metavar="list", help="Logging driver options")] = []


class CreateIsolationFlags(IsolationFlags):
    """What is a list, whole."""

    device: Annotated[
        list[DeviceMapping],
        flag("--device", metavar="list", parse=isolating.device, help="Add a device of the task's host"),
    ] = []
    device_cgroup_rule: Annotated[
        list[str], flag("--device-cgroup-rule", metavar="list", help="Add a rule to the cgroup allowed devices list")
    ] = []
    dns_search: Annotated[list[str], flag("--dns-search", metavar="list", help="Set custom DNS search domains")] = []
    dns_option: Annotated[list[str], flag("--dns-option", metavar="list", help="Set DNS options")] = []


class UpdateIsolationFlags(IsolationFlags):
    """What is added to a list, and what is taken from it."""

    device_add: Annotated[
        list[DeviceMapping],
        flag("--device-add", metavar="list", parse=isolating.device, help="Add or update a device of the task's host"),
    ] = []
    device_rm: Annotated[list[str], flag("--device-rm", metavar="list", help="Remove a device by its host's path")] = []
    device_cgroup_rule_add: Annotated[
        list[str], flag("--device-cgroup-rule-add", metavar="list", help="Add a rule of allowed devices")
    ] = []
    device_cgroup_rule_rm: Annotated[
        list[str], flag("--device-cgroup-rule-rm", metavar="list", help="Remove a rule of allowed devices")
    ] = []
    dns_search_add: Annotated[
        list[str], flag("--dns-search-add", metavar="list", help="Add or update a custom DNS search domain")
    ] = []
    dns_search_rm: Annotated[list[str], flag("--dns-search-rm", metavar="list", help="Remove a DNS search domain")] = []
    dns_option_add: Annotated[
        list[str], flag("--dns-option-add", metavar="list", help="Add or update a DNS option")
    ] = []
    dns_option_rm: Annotated[list[str], flag("--dns-option-rm", metavar="list", help="Remove a DNS option")] = []
