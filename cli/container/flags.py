"""The flags that `run` and `create` share: what a container is made of."""

from typing import Annotated

from cli.command import Flags, flag, switch
from cli.container.health import HealthFlags
from cli.parse import isolation as isolating
from cli.parse import mount as mounting  # flags have the names of their parsers: by module, they differ
from cli.parse import pair, process, size
from cli.parse.isolation import Exposed
from cli.parse.number import integer, integer32, natural
from cli.parse.port import container_ports
from shoal.v1.types_pb2 import DeviceMapping, DeviceWeight, Mount, NetworkAttachment, Port, RestartPolicy, Ulimit


class Ports(list[Port]):
    """The ports of one `-p`: a range is several."""


class ProcessFlags(Flags):
    """The process and its surroundings."""

    env: Annotated[
        list[str], flag("-e", "--env", metavar="list", parse=pair.variable, help="Set environment variables")
    ] = []
    env_file: Annotated[
        list[str], flag("--env-file", metavar="list", help="Read in a file of environment variables")
    ] = []
    entrypoint: Annotated[str | None, flag("--entrypoint", help="Overwrite the default ENTRYPOINT of the image")] = None
    workdir: Annotated[str, flag("-w", "--workdir", help="Working directory inside the container")] = ""
    user: Annotated[str, flag("-u", "--user", help="Username or UID (format: <name|uid>[:<group|gid>])")] = ""
    group_add: Annotated[list[str], flag("--group-add", metavar="list", help="Add additional groups to join")] = []
    interactive: Annotated[bool, switch("-i", "--interactive", help="Keep STDIN open even if not attached")] = False
    tty: Annotated[bool, switch("-t", "--tty", help="Allocate a pseudo-TTY")] = False
    init: Annotated[
        bool, switch("--init", help="Run an init inside the container that forwards signals and reaps processes")
    ] = False
    hostname: Annotated[str, flag("-h", "--hostname", help="Container host name")] = ""
    domainname: Annotated[str, flag("--domainname", help="Container NIS domain name")] = ""
    stop_signal: Annotated[str, flag("--stop-signal", help="Signal to stop the container")] = ""
    stop_timeout: Annotated[
        int | None,
        flag("--stop-timeout", metavar="int", parse=integer32, help="Timeout (in seconds) to stop a container"),
    ] = None


class IsolationFlags(Flags):
    """What it may do and how much it may take."""

    memory: Annotated[int, flag("-m", "--memory", metavar="bytes", parse=size.size, help="Memory limit")] = 0
    cpus: Annotated[int, flag("--cpus", metavar="decimal", parse=size.cpus, help="Number of CPUs")] = 0
    pids_limit: Annotated[
        int, flag("--pids-limit", metavar="int", parse=integer, help="Tune container pids limit (set -1 for unlimited)")
    ] = 0
    cap_add: Annotated[list[str], flag("--cap-add", metavar="list", help="Add Linux capabilities")] = []
    cap_drop: Annotated[list[str], flag("--cap-drop", metavar="list", help="Drop Linux capabilities")] = []
    privileged: Annotated[bool, switch("--privileged", help="Give extended privileges to this container")] = False
    read_only: Annotated[bool, switch("--read-only", help="Mount the container's root filesystem as read only")] = False
    shm_size: Annotated[int, flag("--shm-size", metavar="bytes", parse=size.size, help="Size of /dev/shm")] = 0
    ulimit: Annotated[
        list[Ulimit], flag("--ulimit", metavar="ulimit", parse=process.ulimit, help="Ulimit options")
    ] = []
    sysctl: Annotated[list[str], flag("--sysctl", metavar="map", help="Sysctl options")] = []
    pid: Annotated[str, flag("--pid", help='PID namespace to use ("host", "container:NAME")')] = ""
    ipc: Annotated[
        str, flag("--ipc", help='IPC mode to use ("private", "shareable", "host", "none", "container:NAME")')
    ] = ""
    uts: Annotated[str, flag("--uts", help='UTS namespace to use ("host")')] = ""
    cgroupns: Annotated[str, flag("--cgroupns", help='Cgroup namespace to use ("private", "host")')] = ""
    userns: Annotated[str, flag("--userns", help='User namespace to use ("host", "auto")')] = ""
    isolation: Annotated[
        str, flag("--isolation", parse=isolating.technology, late=True, help="Container isolation technology")
    ] = ""
    disable_content_trust: Annotated[bool, switch("--disable-content-trust", help="Skip image verification")] = True
    runtime: Annotated[str, flag("--runtime", help="Runtime to use for this container")] = ""
    device: Annotated[
        list[DeviceMapping],
        flag("--device", metavar="list", parse=isolating.device, help="Add a host device to the container"),
    ] = []
    gpus: Annotated[
        list[isolating.Devices],
        flag("--gpus", metavar="gpu-request", parse=isolating.gpus, help="GPU devices to add to the container"),
    ] = []
    device_cgroup_rule: Annotated[
        list[str], flag("--device-cgroup-rule", metavar="list", help="Add a rule to the cgroup allowed devices list")
    ] = []
    security_opt: Annotated[list[str], flag("--security-opt", metavar="list", help="Security Options")] = []
    oom_score_adj: Annotated[
        int,
        flag("--oom-score-adj", metavar="int", parse=integer32, help="Tune host's OOM preferences (-1000 to 1000)"),
    ] = 0


class TuningFlags(Flags):
    """How the kernel shares the host, besides amounts."""

    cpu_shares: Annotated[
        int, flag("-c", "--cpu-shares", metavar="int", parse=integer, help="CPU shares (relative weight)")
    ] = 0
    cpu_period: Annotated[
        int, flag("--cpu-period", metavar="int", parse=integer, help="Limit CPU CFS (Completely Fair Scheduler) period")
    ] = 0
    cpu_quota: Annotated[
        int, flag("--cpu-quota", metavar="int", parse=integer, help="Limit CPU CFS (Completely Fair Scheduler) quota")
    ] = 0
    cpu_rt_period: Annotated[
        int, flag("--cpu-rt-period", metavar="int", parse=integer, help="Limit CPU real-time period in microseconds")
    ] = 0
    cpu_rt_runtime: Annotated[
        int, flag("--cpu-rt-runtime", metavar="int", parse=integer, help="Limit CPU real-time runtime in microseconds")
    ] = 0
    cpuset_cpus: Annotated[str, flag("--cpuset-cpus", help="CPUs in which to allow execution (0-3, 0,1)")] = ""
    cpuset_mems: Annotated[str, flag("--cpuset-mems", help="MEMs in which to allow execution (0-3, 0,1)")] = ""
    memory_reservation: Annotated[
        int, flag("--memory-reservation", metavar="bytes", parse=size.size, help="Memory soft limit")
    ] = 0
    memory_swap: Annotated[
        int,
        flag(
            "--memory-swap",
            metavar="bytes",
            parse=isolating.swap,
            help="Swap limit equal to memory plus swap: -1 to enable unlimited swap",
        ),
    ] = 0
    blkio_weight: Annotated[
        int,
        flag("--blkio-weight", metavar="uint16", parse=natural, help="Block IO (relative weight), between 10 and 1000"),
    ] = 0


class OnceFlags(Flags):
    """What is set when a container is made, and not changed later."""

    memory_swappiness: Annotated[
        int | None,
        flag(
            "--memory-swappiness",
            metavar="int",
            parse=isolating.swappiness,
            help="Tune container memory swappiness (0 to 100)",
        ),
    ] = None
    oom_kill_disable: Annotated[bool, switch("--oom-kill-disable", help="Disable OOM Killer")] = False
    blkio_weight_device: Annotated[
        list[DeviceWeight],
        flag(
            "--blkio-weight-device",
            metavar="list",
            parse=isolating.device_weight,
            help="Block IO weight (relative device weight)",
        ),
    ] = []
    device_read_bps: Annotated[
        list[str],
        flag("--device-read-bps", metavar="list", help="Limit read rate (bytes per second) from a device"),
    ] = []
    device_write_bps: Annotated[
        list[str],
        flag("--device-write-bps", metavar="list", help="Limit write rate (bytes per second) to a device"),
    ] = []
    device_read_iops: Annotated[
        list[str],
        flag("--device-read-iops", metavar="list", help="Limit read rate (IO per second) from a device"),
    ] = []
    device_write_iops: Annotated[
        list[str],
        flag("--device-write-iops", metavar="list", help="Limit write rate (IO per second) to a device"),
    ] = []


class StorageFlags(Flags):
    """What is mounted."""

    volume: Annotated[
        list[Mount],
        flag("-v", "--volume", metavar="list", parse=mounting.volume, late=True, help="Bind mount a volume"),
    ] = []
    mount: Annotated[
        list[Mount],
        flag("--mount", metavar="mount", parse=mounting.mount, help="Attach a filesystem mount to the container"),
    ] = []
    tmpfs: Annotated[
        list[Mount], flag("--tmpfs", metavar="list", parse=mounting.tmpfs, late=True, help="Mount a tmpfs directory")
    ] = []
    volume_driver: Annotated[
        str, flag("--volume-driver", parse=mounting.driver, help="Optional volume driver for the container")
    ] = "local"
    volumes_from: Annotated[
        list[str], flag("--volumes-from", metavar="list", help="Mount volumes from the specified container(s)")
    ] = []


class NetworkFlags(Flags):
    """How it is reached."""

    publish: Annotated[
        list[Ports],
        flag(
            "-p",
            "--publish",
            metavar="list",
            parse=lambda text: Ports(container_ports(text)),
            help="Publish a container's port(s) to the host",
        ),
    ] = []
    publish_all: Annotated[bool, switch("-P", "--publish-all", help="Publish all exposed ports to random ports")] = (
        False
    )
    network: Annotated[
        list[NetworkAttachment],
        flag("--network", "--net", metavar="network", parse=process.network, help="Connect a container to a network"),
    ] = []
    network_alias: Annotated[
        list[str],
        flag("--network-alias", "--net-alias", metavar="list", help="Add network-scoped alias for the container"),
    ] = []
    ip: Annotated[str, flag("--ip", metavar="ip", parse=process.ipv4_address, late=True, help="IPv4 address")] = ""
    mac_address: Annotated[
        str, flag("--mac-address", parse=process.mac_address, help="Container MAC address (e.g., 92:d0:c6:0a:29:33)")
    ] = ""
    add_host: Annotated[
        list[str],
        flag("--add-host", metavar="list", parse=process.extra_host, help="Add a custom host-to-IP mapping (host:ip)"),
    ] = []
    dns: Annotated[
        list[str], flag("--dns", metavar="list", parse=process.ip_address, help="Set custom DNS servers")
    ] = []
    link: Annotated[list[str], flag("--link", metavar="list", help="Add link to another container")] = []
    dns_search: Annotated[list[str], flag("--dns-search", metavar="list", help="Set custom DNS search domains")] = []
    dns_option: Annotated[list[str], flag("--dns-option", "--dns-opt", metavar="list", help="Set DNS options")] = []
    expose: Annotated[
        list[Exposed],
        flag("--expose", metavar="list", parse=isolating.exposed, help="Expose a port or a range of ports"),
    ] = []


class ContainerFlags(ProcessFlags, IsolationFlags, TuningFlags, OnceFlags, StorageFlags, NetworkFlags, HealthFlags):
    """All of them."""

    name: Annotated[str, flag("--name", help="Assign a name to the container")] = ""
    attach: Annotated[
        list[str],
        flag("-a", "--attach", metavar="list", parse=process.stream, help="Attach to STDIN, STDOUT or STDERR"),
    ] = []
    label: Annotated[
        list[str], flag("-l", "--label", metavar="list", parse=pair.label, help="Set meta data on a container")
    ] = []
    label_file: Annotated[
        list[str], flag("--label-file", metavar="list", help="Read in a line delimited file of labels")
    ] = []
    annotation: Annotated[
        list[str],
        flag("--annotation", metavar="map", help="Add an annotation to the container (passed to the runtime)"),
    ] = []
    cgroup_parent: Annotated[str, flag("--cgroup-parent", help="Optional parent cgroup for the container")] = ""
    log_driver: Annotated[
        str, flag("--log-driver", help='Logging driver for the container ("json-file", "local", "journald", "none")')
    ] = ""
    log_opt: Annotated[list[str], flag("--log-opt", metavar="list", help="Log driver options")] = []
    restart: Annotated[
        RestartPolicy | None,
        flag(
            "--restart",
            parse=process.restart,
            late=True,
            help='Restart policy to apply when a container exits (default "no")',
        ),
    ] = None
    rm: Annotated[
        bool,
        switch("--rm", help="Automatically remove the container and its associated anonymous volumes when it exits"),
    ] = False
    cidfile: Annotated[str, flag("--cidfile", help="Write the container ID to the file")] = ""
    pull: Annotated[str, flag("--pull", help='Pull image before running ("always", "missing", "never")')] = "missing"
    quiet: Annotated[bool, switch("-q", "--quiet", help="Suppress the pull output")] = False
    platform: Annotated[str, flag("--platform", help="Pull the image for this platform (linux/amd64)")] = ""
