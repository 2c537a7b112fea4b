"""What a wish for a container comes to with its image: command, environment, folder, user, mounts, ports.

Pure, and the place where a wish that can never be right is refused, in docker's words. Volumes are named here
(anonymous ones by the `mint` given) and made by `agent.container.create`; whether a bind's source exists is seen
there too.
"""

from __future__ import annotations

import ipaddress
import posixpath
import re
from collections.abc import Callable, Iterable, Sequence

import msgspec

from agent.container.capability import known_capability
from agent.container.health import settled_check
from agent.container.isolation import JOURNAL_LOG, NO_LOG, check_isolation
from agent.volume.volumes import check_volume_name
from shoal.defaults import MIN_MEMORY_BYTES
from shoal.errors import InvalidArgument
from shoal.model.base import Resources
from shoal.model.container import Container, ContainerSpec, Mount, MountType, RestartCondition, Ulimit
from shoal.model.image import ImageConfig
from shoal.model.network import NetworkAttachment, Port, PortProtocol, PublishMode
from shoal.names import link_parts
from shoal.signals import signal_number

BRIDGE, HOST, NONE = "bridge", "host", "none"
CONTAINER_MODE = "container:"
HOST_GATEWAY = "host-gateway"
_ULIMITS = frozenset(
    "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
)
_PROPAGATIONS = frozenset(("", "private", "rprivate", "shared", "rshared", "slave", "rslave"))
_RECURSIONS = frozenset(("", "disabled", "writable", "readonly"))
# Of mount(8) and tmpfs(5); size and mode have fields of their own, but a size may be given in percent, too.
_TMPFS_WORDS = frozenset(
    "ro rw exec noexec suid nosuid dev nodev sync async dirsync atime noatime diratime nodiratime relatime norelatime"
    " strictatime nostrictatime uid gid nr_inodes nr_blocks mpol huge size".split()
)
_HOSTNAME = re.compile(r"[a-zA-Z0-9_](?:[a-zA-Z0-9_.-]{0,62}[a-zA-Z0-9_])?")
_SYSCTLS = frozenset(
    "kernel.msgmax kernel.msgmnb kernel.msgmni kernel.sem kernel.shmall kernel.shmmax kernel.shmmni"
    " kernel.shm_rmid_forced".split()
)


def settled(
    wanted: Container,
    image_id: str,
    image: ImageConfig,
    *,
    cpus: int,
    publish_all: bool,
    mint: Callable[[], str],
    inherited: Sequence[Mount] = (),
) -> Container:
    """`wanted` with everything that follows from it and its image. `mint` names anonymous volumes; `inherited` are
    the mounts of `--volumes-from`, which give way to its own.

    Raises InvalidArgument for what no host could run.
    """
    spec = wanted.spec
    argv = _argv(spec, image)
    workdir = _workdir(spec.workdir or image.workdir or "/")
    networks = _networks(wanted.networks)
    check_limits(wanted.limits, cpus)
    check_isolation(wanted, cpus=cpus)
    check_restart(wanted)
    _check_spec(spec, host_network=networks[0].network == HOST)
    _check_env((*spec.env, *image.env))
    ports = _ports(wanted.ports, (*image.exposed_ports, *spec.exposed_ports) if publish_all else ())
    _check_modes(spec, networks[0].network, ports)
    return msgspec.structs.replace(
        wanted,
        spec=_with_image(spec, image),
        image_id=image_id,
        argv=argv,
        env=_merged_env(image.env, spec.env),
        workdir=workdir,
        user=spec.user or image.user,
        mounts=_mounts(spec.mounts, inherited, image.volumes, mint),
        networks=networks,
        ports=ports,
        health=settled_check(spec.health, image.health),
        log_path="" if spec.log.driver in (NO_LOG, JOURNAL_LOG) else wanted.log_path,
    )


def _with_image(spec: ContainerSpec, image: ImageConfig) -> ContainerSpec:
    """What its labels, ports and command are, whoever says so: what lists and filters go by."""
    if not spec.entrypoint_set:
        spec = msgspec.structs.replace(spec, entrypoint=image.entrypoint, args=spec.args or image.cmd)
    return msgspec.structs.replace(
        spec,
        labels={**image.labels, **spec.labels},
        exposed_ports=tuple(dict.fromkeys((*image.exposed_ports, *spec.exposed_ports))),
    )


def config_of(container: Container, image: ImageConfig) -> ImageConfig:
    """What an image made from this container says of its own: the image's words, and the container's over them."""
    spec = container.spec
    cmd = image.cmd if not spec.entrypoint_set else ()
    exposed = [*spec.exposed_ports] + [f"{each.target}/{each.protocol.name.lower()}" for each in container.ports]
    return msgspec.structs.replace(
        image,
        entrypoint=spec.entrypoint if spec.entrypoint_set else image.entrypoint,
        cmd=spec.args or cmd,
        env=container.env,
        workdir=container.workdir if container.workdir != "/" else image.workdir,
        user=container.user,
        labels={**image.labels, **spec.labels},
        exposed_ports=tuple(sorted({*image.exposed_ports, *exposed})),
        stop_signal=spec.stop_signal or image.stop_signal,
        health=container.health if spec.health.test else image.health,
    )


def warnings_of(container: Container) -> tuple[str, ...]:
    """What the user asked for and will not get, in docker's words."""
    found = []
    if container.ports and container.networks[0].network == HOST:
        found.append("Published ports are discarded when using host network mode")
    if container.tuning.oom_kill_disable and not container.limits.memory_bytes:
        found += [
            "Disabling the OOM killer on containers without setting a '-m/--memory' limit may be dangerous.",
            "OOM killer is disabled for the container, but no memory limit is set, "
            "this can result in the system running out of resources.",
        ]
    return tuple(found)


def _argv(spec: ContainerSpec, image: ImageConfig) -> tuple[str, ...]:
    """docker's rule: a new entrypoint drops the image's CMD too."""
    if spec.entrypoint_set:
        argv = (*(spec.entrypoint if spec.entrypoint != ("",) else ()), *spec.args)
    else:
        argv = (*image.entrypoint, *(spec.args or image.cmd))
    if not argv or not argv[0]:
        raise InvalidArgument("No command specified", hint="give one after the image, or CMD to the image")
    if any("\0" in each for each in argv):
        raise InvalidArgument("an argument of the command contains a NUL byte")
    return argv


def _workdir(path: str) -> str:
    if not path.startswith("/"):
        raise InvalidArgument(f"the working directory '{path}' is invalid, it needs to be an absolute path")
    return _clean(path)


def _merged_env(image: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    """The wish's variables, then those of the image that it says nothing of, as docker orders them."""
    merged = dict(_pair(each) for each in wanted)
    for each in image:
        merged.setdefault(*_pair(each))
    return tuple(f"{name}={value}" for name, value in merged.items() if value is not None)


def _pair(variable: str) -> tuple[str, str | None]:
    name, equals, value = variable.partition("=")
    return name, value if equals else None


def _check_env(variables: Iterable[str]) -> None:
    for each in variables:
        if not each or each.startswith("=") or "\0" in each:
            raise InvalidArgument(f"invalid environment variable: {each!r}")


def _networks(wanted: tuple[NetworkAttachment, ...]) -> tuple[NetworkAttachment, ...]:
    networks = tuple(
        msgspec.structs.replace(each, network=BRIDGE) if each.network in ("", "default") else each for each in wanted
    ) or (NetworkAttachment(network=BRIDGE),)
    names = [each.network for each in networks]
    for each in networks:
        check_links(each)
        if each.aliases and _is_special(each.network):
            raise InvalidArgument("network-scoped aliases are only supported for user-defined networks")
    if len(set(names)) < len(names):
        raise InvalidArgument(f"a container cannot be on one network twice: {', '.join(names)}")
    if len(names) > 1:
        for name in names:
            if _is_special(name):
                raise InvalidArgument(
                    f"conflicting options: cannot attach both user-defined and non-user-defined network-modes ({name})"
                )
    return networks


def check_links(attachment: NetworkAttachment) -> None:
    """Raises InvalidArgument."""
    if attachment.links and (attachment.network == BRIDGE or _is_special(attachment.network)):
        raise InvalidArgument("links are only supported for user-defined networks")
    for each in attachment.links:
        link_parts(each)


def _is_special(network: str) -> bool:
    """Whether it is none that was made: the host's, another container's, or none at all."""
    return network in (HOST, NONE) or network.startswith(CONTAINER_MODE)


def _check_modes(spec: ContainerSpec, network: str, ports: Sequence[Port]) -> None:
    if spec.links and _is_special(network):
        raise InvalidArgument("links are only supported for user-defined networks")
    if not network.startswith(CONTAINER_MODE):
        return
    for given, what in (
        (spec.hostname, "hostname"),
        (spec.dns, "dns"),
        (spec.hosts, "custom host-to-IP mapping"),
    ):
        if given:
            raise InvalidArgument(f"conflicting options: {what} and the network mode")
    if ports:
        raise InvalidArgument("conflicting options: port publishing and the container type network mode")


def _ports(wanted: tuple[Port, ...], exposed: Sequence[str]) -> tuple[Port, ...]:
    ports = [msgspec.structs.replace(each, mode=PublishMode.HOST) for each in wanted]
    for each in ports:
        if not 0 < each.target < 65536:
            raise InvalidArgument(f"invalid containerPort: {each.target}")
        if not 0 <= each.published < 65536:
            raise InvalidArgument(f"invalid hostPort: {each.published}")
        if each.host_address:
            _check_address(each.host_address, f"invalid IP address: {each.host_address}")
    have = {(each.target, each.protocol) for each in ports}
    for word in exposed:
        number, _, protocol = word.partition("/")
        port = (int(number), PortProtocol.UDP if protocol == "udp" else PortProtocol.TCP)
        if port not in have:
            have.add(port)
            ports.append(Port(target=port[0], protocol=port[1], mode=PublishMode.HOST))
    return tuple(ports)


def _check_address(text: str, message: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise InvalidArgument(message) from None


def check_limits(limits: Resources, cpus: int) -> None:
    """Raises InvalidArgument in docker's words."""
    if limits.memory_bytes < 0:
        raise InvalidArgument(f"a limit is not negative: {limits.memory_bytes} bytes")
    if 0 < limits.memory_bytes < MIN_MEMORY_BYTES:
        raise InvalidArgument(f"Minimum memory limit allowed is {MIN_MEMORY_BYTES >> 20}MB")
    if limits.nano_cpus and not 10**7 <= limits.nano_cpus <= cpus * 10**9:
        raise InvalidArgument(
            f"range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available",
        )


def check_restart(wanted: Container) -> None:
    """Raises InvalidArgument in docker's words."""
    policy = wanted.restart
    if policy.max_attempts < 0 or policy.delay_ns < 0 or policy.window_ns < 0:
        raise InvalidArgument(f"maximum retry count cannot be negative: {policy.max_attempts}")
    if wanted.auto_remove and policy.condition != RestartCondition.NONE:
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy", hint="drop one of the two")


def _check_spec(spec: ContainerSpec, *, host_network: bool) -> None:
    if spec.hostname and not _HOSTNAME.fullmatch(spec.hostname):
        raise InvalidArgument(f"invalid hostname format: {spec.hostname!r}")
    for name in spec.cap_add:
        known_capability(name, "CapAdd")
    for name in spec.cap_drop:
        known_capability(name, "CapDrop")
    if spec.stop_signal:
        signal_number(spec.stop_signal)
    if spec.shm_size_bytes < 0:
        raise InvalidArgument("SHM size can not be less than 0")
    for address in spec.dns:
        _check_address(address, f"invalid IP address: {address}")
    for entry in spec.hosts:
        _check_host(entry)
    for limit in spec.ulimits:
        _check_ulimit(limit)
    for name in spec.sysctls:
        _check_sysctl(name, host_network=host_network)


def _check_host(entry: str) -> None:
    name, colon, address = entry.partition(":")
    if not colon or not name or any(each.isspace() for each in name):
        raise InvalidArgument(f'bad format for add-host: "{entry}"')
    if address != HOST_GATEWAY:
        _check_address(address, f'invalid IP address in add-host: "{address}"')


def _check_ulimit(limit: Ulimit) -> None:
    if limit.name not in _ULIMITS:
        raise InvalidArgument(f"invalid ulimit type: {limit.name}")
    if limit.hard != -1 and (limit.soft > limit.hard or limit.soft == -1):
        raise InvalidArgument(
            f"ulimit soft limit must be less than or equal to hard limit: {limit.soft} > {limit.hard}"
        )


def _check_sysctl(name: str, *, host_network: bool) -> None:
    if name.startswith("net."):
        if host_network:
            raise InvalidArgument(f"sysctl '{name}' not allowed in host network namespace")
    elif name not in _SYSCTLS and not name.startswith("fs.mqueue."):
        raise InvalidArgument(f"sysctl '{name}' is not whitelisted", hint="it is not kept per container")


def _mounts(
    wanted: Sequence[Mount], inherited: Sequence[Mount], image_volumes: Sequence[str], mint: Callable[[], str]
) -> tuple[Mount, ...]:
    """The wish's, then those of others that nothing of it lies at, then one anonymous volume for each VOLUME of the
    image that nothing else is mounted on."""
    mounts = [_mount(each, mint) for each in wanted]
    targets = {each.target for each in mounts}
    if len(targets) < len(mounts):
        double = next(each.target for i, each in enumerate(mounts) if each.target in {m.target for m in mounts[:i]})
        raise InvalidArgument(f"Duplicate mount point: {double}")
    borrowed = {each.target: each for each in inherited if each.target not in targets}
    mounts += borrowed.values()
    targets |= borrowed.keys()
    declared = dict.fromkeys(_clean("/" + each) for each in image_volumes)
    anonymous = [
        Mount(type=MountType.VOLUME, source=mint(), target=path)
        for path in declared
        if path not in targets and path != "/"
    ]
    return (*mounts, *anonymous)


def _mount(mount: Mount, mint: Callable[[], str]) -> Mount:
    word = mount.type.name.lower()
    if not mount.target.startswith("/"):
        raise InvalidArgument(
            f'invalid mount config for type "{word}": '
            f"invalid mount path: '{mount.target}' mount path must be absolute"
        )
    if "\0" in mount.target + mount.source:
        raise InvalidArgument(f'invalid mount config for type "{word}": a path contains a NUL byte')
    target = _clean(mount.target)
    if target == "/":
        raise InvalidArgument("invalid specification: destination can't be '/'")
    if target == "/proc" or target.startswith("/proc/"):
        raise InvalidArgument(f"invalid mount path: '{target}': /proc may not be covered")
    if mount.propagation not in _PROPAGATIONS:
        raise InvalidArgument(f'invalid mount config for type "{word}": invalid propagation mode: {mount.propagation}')
    _check_options(mount, word)
    if mount.tmpfs_size_bytes < 0 or mount.tmpfs_mode & ~0o7777:
        raise InvalidArgument(f'invalid mount config for type "{word}": bad size or mode of {target}')
    return msgspec.structs.replace(mount, target=target, source=_source(mount, mint))


def _check_options(mount: Mount, word: str) -> None:
    """Raises InvalidArgument for what does not go with this kind of mount, or with itself."""
    what = f'invalid mount config for type "{word}"'
    kinds = {
        "tmpfs options": (bool(mount.tmpfs_options), MountType.TMPFS),
        "a subpath": (bool(mount.subpath), MountType.VOLUME),
        "recursion": (bool(mount.recursion), MountType.BIND),
    }
    for name, (given, kind) in kinds.items():
        if given and mount.type != kind:
            raise InvalidArgument(f"{what}: {name} goes with type {kind.name.lower()}")
    for each in mount.tmpfs_options:
        if each.partition("=")[0] not in _TMPFS_WORDS or "," in each:
            shown = " ".join(f'"{word}"' for word in each.split("=", 1))
            raise InvalidArgument(f"invalid tmpfs option [{shown}]")
    if mount.subpath and (mount.subpath.startswith("/") or ".." in mount.subpath.split("/") or "\0" in mount.subpath):
        raise InvalidArgument(f"{what}: subpath must be a relative path within the volume: {mount.subpath!r}")
    if mount.recursion not in _RECURSIONS:
        raise InvalidArgument(f"{what}: invalid recursion: {mount.recursion!r}")
    if mount.recursion in ("writable", "readonly") and not mount.read_only:
        raise InvalidArgument(f"{what}: bind-recursive={mount.recursion} goes with a read-only mount")
    if mount.recursion == "readonly" and mount.propagation not in ("", "rprivate"):
        raise InvalidArgument(f"{what}: bind-recursive=readonly requires bind-propagation=rprivate")
    if mount.relabel not in ("", "z", "Z"):
        raise InvalidArgument(f"{what}: invalid mode: {mount.relabel}")


def _source(mount: Mount, mint: Callable[[], str]) -> str:
    if mount.type == MountType.TMPFS:
        return ""
    if mount.type == MountType.VOLUME:
        if mount.source:
            check_volume_name(mount.source)
        return mount.source or mint()
    if not mount.source.startswith("/"):
        raise InvalidArgument(
            f"invalid mount config for type \"bind\": invalid mount path: '{mount.source}' must be absolute",
            hint="give the whole path of the host folder",
        )
    return _clean(mount.source)


def _clean(path: str) -> str:
    return posixpath.normpath("/" + path.lstrip("/"))
