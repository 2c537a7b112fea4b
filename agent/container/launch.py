"""Launch: one start of a container. Gathers the facts, connects the network, has the runtime run it; all or nothing.

`bundle` says what is run, `agent.container.lifecycle` when. Nothing here is kept: after a crash between two steps
the runtime and the network have what nobody's state mentions, and `adopt` sweeps it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import posixpath
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from agent.container import cdi, host, journal, link, place, sharedmemory
from agent.container.bundle import Facts, bundle
from agent.container.held import Held
from agent.container.hostfiles import PATHS, replace_host, source_of, write_host_files
from agent.container.idrange import SIZE
from agent.container.isolation import JOURNAL_LOG, SHAREABLE, log_limits
from agent.container.record import Records
from agent.container.rootview import RootView
from agent.container.runtimes import Runtimes, commandline
from agent.container.settle import CONTAINER_MODE, HOST
from agent.container.user import GROUP, PASSWD, User, user_of
from agent.image.images import Images
from agent.kernel import userns
from agent.kernel.userns import UserNamespace
from agent.network.networks import Networks
from agent.runtime.run import Rootfs, Start, Started
from agent.runtime.runtime import Runtime
from agent.volume.volumes import Volumes
from shoal import ids
from shoal.errors import Conflict, ShoalError, StartFailed, Unsupported
from shoal.model.container import Container, ContainerState
from shoal.model.network import Address, Port
from shoal.names import link_parts

log = logging.getLogger(__name__)


class Size(msgspec.Struct, frozen=True):
    """Of a terminal; zeros mean the kernel's default."""

    rows: int = 0
    columns: int = 0


NO_SIZE = Size()
# Gets addresses and ports.
Note = Callable[[tuple[Address, ...], tuple[Port, ...]], Awaitable[None]]


class _Joined(msgspec.Struct, frozen=True):
    """The network of one start. `files` are shared with `owner`, the container whose network this is."""

    netns_path: str
    hostname: str
    files: Path
    owner: str = ""
    addresses: tuple[Address, ...] = ()
    ports: tuple[Port, ...] = ()


class Launcher:
    """`find` resolves the other container of a "container:ID" network."""

    def __init__(
        self,
        *,
        records: Records,
        runtime: Runtime,
        images: Images,
        networks: Networks,
        volumes: Volumes,
        base_layer: str,
        runtimes: Runtimes,
        find: Callable[[str], Held],
    ) -> None:
        self._records = records
        self._runtime = runtime
        self._images = images
        self._networks = networks
        self._volumes = volumes
        self._base_layer = base_layer
        self._runtimes = runtimes
        self._find = find
        self._boot_id = host.boot_id()
        self._available = host.available_capabilities()
        self._thermal = host.thermal_files()
        # Of images that nobody wrote to: reading passwd through the layers costs as much as the rest of a launch.
        self._users: dict[tuple[str, str, tuple[str, ...]], User] = {}

    @property
    def boot_id(self) -> str:
        return self._boot_id

    @property
    def thermal(self) -> tuple[str, ...]:
        """The host's files that are masked."""
        return self._thermal

    async def launch(self, held: Held, size: Size, note: Note) -> Started:
        """Run it. `note` is told what it will have just before it runs, to write it down.

        Raises what the network, the volumes or the runtime raise; then nothing of it is left.
        """
        try:
            return await self._launch(held, size, note)
        except OSError as error:
            raise StartFailed(
                f"container {held.name} cannot be started: {error}", hint="see whether the host's disk is full"
            ) from error

    async def _launch(self, held: Held, size: Size, note: Note) -> Started:
        with contextlib.ExitStack() as opened:
            own = await self._user_namespace(held.container, opened)
            return await self._launch_in(own, held, size, note)

    async def _user_namespace(self, container: Container, opened: contextlib.ExitStack) -> UserNamespace | None:
        """Held until `opened` is left: by then the container's process does, or nobody."""
        if not container.first_id:
            return None
        made = await asyncio.to_thread(userns.create, container.first_id, SIZE)
        opened.callback(made.close)
        return made

    async def _launch_in(self, own: UserNamespace | None, held: Held, size: Size, note: Note) -> Started:
        container = held.container
        first = not held.state.boot_id
        held.cleared = False
        layers = self.layers(container)
        user = self.user(container, layers, untouched=first)
        sources = await place.sources(container.mounts, self._volumes, user=held.id)
        self.renew(held)
        try:
            joined = await self._join(container, own)
            facts = self._facts(container, joined, user=user, sources=sources, size=size)
            if own is not None:
                facts = msgspec.structs.replace(facts, userns_path=own.path)
            if links := await self.links(container):
                facts = msgspec.structs.replace(facts, linked=tuple(link.environment(container.name, links)))
            await note(joined.addresses, joined.ports)
            started = await self._runtime.start(self._start(container, facts, layers))
        except BaseException:
            await self.clear(held)
            raise
        if not joined.owner:
            await self._networks.started(held.id)
        return started

    async def links(self, container: Container) -> list[link.Link]:
        """Raises Conflict for one that does not run, NotFound for one that is gone."""
        found = []
        for word in container.links:
            owner_id, alias = link_parts(word)
            owner = self._find(owner_id)
            addresses = owner.state.status.addresses
            if not owner.alive or not addresses:
                raise Conflict(
                    f"Cannot link to a non running container: /{owner.name} AS /{container.name}/{alias}",
                    hint=f"run shoal start {owner.name}",
                )
            image = await self._images.get(owner.record.container.image_id)
            ports = link.exposed(owner.record.container, image.config.exposed_ports)
            found.append(link.Link(alias, owner.container, addresses[0].address, ports))
        return found

    def relink(self, held: Held, owner: Held) -> None:
        """`owner` has another address: say so in the hosts file of `held`, which is linked to it and runs."""
        address = owner.state.status.addresses[0].address if owner.state.status.addresses else ""
        for word in held.record.container.links:
            owner_id, alias = link_parts(word)
            if owner_id == owner.id and address:
                line = link.hosts_line(link.Link(alias, owner.container, address))
                replace_host(self._records.folder(held.id), owner.id, line)

    def renew(self, held: Held) -> None:
        """Make the writable layer of a container that does not run mountable again."""
        if _is_volatile(held.record.container) and held.state.boot_id:
            _renew(self._records.folder(held.id), same_boot=held.state.boot_id == self._boot_id)

    async def clear(self, held: Held) -> None:
        """Take away what a run leaves: its network, cgroup, FIFOs, shared memory. Idempotent; what fails is left to
        `adopt`."""
        if held.cleared:
            return
        if held.record.container.spec.ipc_mode == SHAREABLE:
            with contextlib.suppress(OSError):
                sharedmemory.remove(self._records.folder(held.id))
        held.cleared = True
        for take_away in (self._networks.disconnect, self._runtime.delete):
            try:
                await take_away(held.id)
            except (ShoalError, OSError) as error:
                held.cleared = False
                log.warning("container %s left something behind: %s", ids.short(held.id), error)

    def user(self, container: Container, layers: tuple[str, ...], *, untouched: bool) -> User:
        """Who runs in it. `untouched`: nothing has written to its layer yet."""
        key = (container.image_id, container.user, container.spec.groups)
        user = self._users.get(key) if untouched else None
        if user is None:
            upper = str(self._records.folder(container.meta.id) / "upper")
            user = user_in((upper, *layers), container.user, container.spec.groups)
            if untouched:
                if len(self._users) > 500:
                    self._users.clear()
                self._users[key] = user
        return user

    def user_now(self, container: Container, wanted: str) -> User:
        """Who `wanted` (`exec -u`) is, by the files as they are now."""
        upper = str(self._records.folder(container.meta.id) / "upper")
        return user_in((upper, *self.layers(container)), wanted, container.spec.groups)

    def layers(self, container: Container) -> tuple[str, ...]:
        """The folders below its own, top first."""
        return (*self._images.layers(container.image_id), self._base_layer)

    async def _join(self, container: Container, own: UserNamespace | None) -> _Joined:
        network = container.networks[0].network
        folder = self._records.folder(container.meta.id)
        if network.startswith(CONTAINER_MODE):
            owner = self._find(network.removeprefix(CONTAINER_MODE))
            return self._join_owner(owner)
        hostname = hostname_of(container)
        connection = await self._networks.connect(
            container.meta.id,
            name=container.name,
            hostname=hostname,
            attachments=container.networks,
            ports=container.ports,
            namespace=own.network if own is not None else None,
        )
        links = await self.links(container)
        write_host_files(folder, container, hostname, connection, [link.hosts_line(each) for each in links])
        return _Joined(
            netns_path=connection.netns_path,
            hostname=hostname,
            files=folder,
            addresses=connection.addresses,
            ports=connection.ports,
        )

    def _join_owner(self, owner: Held) -> _Joined:
        """Share the network of a container that runs: its namespace, and the files that go with it."""
        status = owner.state.status
        if status.state not in (ContainerState.RUNNING, ContainerState.PAUSED):
            raise Conflict(f"cannot join network of a non running container: {owner.id}", hint="start it first")
        network = owner.record.container.networks[0].network
        if network.startswith(CONTAINER_MODE):  # it shares one itself; the files are its owner's
            further = self._find(network.removeprefix(CONTAINER_MODE))
            files, hostname = self._records.folder(further.id), hostname_of(further.record.container)
        else:
            files, hostname = self._records.folder(owner.id), hostname_of(owner.record.container)
        path = "" if network == HOST else f"/proc/{status.pid}/ns/net"
        return _Joined(netns_path=path, hostname=hostname, files=files, owner=owner.id)

    def _pid_namespace(self, container: Container) -> str:
        """Of the container whose processes this one sees; empty for its own or the host's."""
        owner = self._owner(container.spec.pid_mode, "PID")
        return f"/proc/{owner.state.status.pid}/ns/pid" if owner is not None else ""

    def _ipc(self, container: Container) -> tuple[str, str]:
        """(the namespace of the container whose IPC this one shares, where a /dev/shm that others see is); empty for
        its own or the host's."""
        mode = container.spec.ipc_mode
        if mode == SHAREABLE:
            return "", sharedmemory.make(self._records.folder(container.meta.id), container.spec.shm_size_bytes)
        owner = self._owner(mode, "IPC")
        if owner is None:
            return "", ""
        if owner.record.container.spec.ipc_mode != SHAREABLE:
            raise Conflict(
                f"can't join IPC of container {owner.id}: non-shareable IPC "
                "(hint: use IpcMode:shareable for the donor container)"
            )
        shm = sharedmemory.path_of(self._records.folder(owner.id))
        return f"/proc/{owner.state.status.pid}/ns/ipc", shm

    def _owner(self, mode: str, what: str) -> Held | None:
        """The container that a mode names; None where it names none. Raises Conflict for one that does not run."""
        if not mode.startswith(CONTAINER_MODE):
            return None
        owner = self._find(mode.removeprefix(CONTAINER_MODE))
        if not owner.alive:
            raise Conflict(f"cannot join {what} of a non running container: {owner.id}", hint="start it first")
        return owner

    def _facts(
        self, container: Container, joined: _Joined, *, user: User, sources: tuple[str, ...], size: Size
    ) -> Facts:
        host.check_ulimits(container.spec.ulimits)
        ipcns_path, shm_path = self._ipc(container)
        return Facts(
            cgroup=posixpath.join(container.spec.cgroup_parent, container.meta.id),
            hostname=joined.hostname,
            user=user,
            available=self._available,
            netns_path=joined.netns_path,
            shares_netns=bool(joined.owner),
            sources=sources,
            files=tuple((each, source_of(joined.files, each)) for each in PATHS),
            devices=(
                *(host.devices() if container.spec.privileged else ()),
                *host.mapped_devices(container.spec.devices),
            ),
            pidns_path=self._pid_namespace(container),
            ipcns_path=ipcns_path,
            shm_path=shm_path,
            throttles=host.throttled(container.tuning.throttles),
            weights=host.weighted(container.tuning.device_weights),
            # Among the processes of others there is an init already.
            init_path=host.init_program() if container.spec.init and not container.spec.pid_mode else "",
            rows=size.rows,
            columns=size.columns,
            cpu_throttles=self._thermal,
        )

    def _start(self, container: Container, facts: Facts, layers: tuple[str, ...]) -> Start:
        folder = self._records.folder(container.meta.id)
        log_max_bytes, log_max_files = log_limits(container.spec.log)
        config = cdi.edited(bundle(container, facts), container.spec.devices)
        program = self._runtimes.program(self._runtimes.chosen(container.spec.runtime))
        if program and any(each.subpath for each in container.mounts):
            raise Unsupported(
                f"runtime {container.spec.runtime} cannot mount a subpath of a volume", hint="leave --runtime out"
            )
        if "hooks" in config and not program:
            program = commandline()
        if program and container.first_id:
            with_what = "hooks" if "hooks" in config else f"runtime {container.spec.runtime}"
            raise Unsupported(f"--userns=auto is not supported yet with {with_what}")
        return Start(
            id=container.meta.id,
            config=config,
            rootfs=Rootfs(
                lower=layers,
                upper=f"{folder}/upper",
                work=f"{folder}/work",
                volatile=_is_volatile(container),
            ),
            runtime=program,
            log_path=container.log_path,
            journal=journal.fields(container) if container.spec.log.driver == JOURNAL_LOG else {},
            log_max_bytes=log_max_bytes,
            log_max_files=log_max_files,
            tty=container.spec.tty,
            stdin=container.spec.open_stdin,
            rows=facts.rows,
            columns=facts.columns,
        )


def hostname_of(container: Container) -> str:
    """The user's, else the host's on the host's network or with its name, else the short id."""
    if container.spec.hostname:
        return container.spec.hostname
    if HOST in (container.networks[0].network, container.spec.uts_mode):
        return os.uname().nodename
    return ids.short(container.meta.id)


def user_in(layers: tuple[str, ...], wanted: str, groups: tuple[str, ...]) -> User:
    """`wanted` by the passwd and group files in these layers, top first."""
    with RootView(layers) as view:
        return user_of(wanted, passwd=view.read(PASSWD) or b"", group=view.read(GROUP) or b"", extra_groups=groups)


def _is_volatile(container: Container) -> bool:
    """Whether its writable layer need not survive the power: overlayfs then never syncs (`volatile`)."""
    return container.auto_remove or bool(container.task_id)


def _renew(folder: Path, *, same_boot: bool) -> None:
    """Make a volatile layer mountable again: the kernel refuses one that was mounted before (overlayfs.rst, "Volatile
    mount"). In the same boot nothing can be torn; after another one the layer starts empty."""
    if same_boot:
        shutil.rmtree(folder / "work/work/incompat", ignore_errors=True)
        return
    for name, mode in (("upper", 0o755), ("work", 0o700)):
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(mode=mode, exist_ok=True)
