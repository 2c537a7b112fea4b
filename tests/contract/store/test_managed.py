"""The etcd that managers run themselves: real processes as agents supervise them, with certificates as nodes have."""

import asyncio
import contextlib
import os
import signal
import socket
import ssl
import stat
import tempfile
import time
from pathlib import Path

import msgspec
import pytest
from cryptography import x509

from agent.etcd import EtcdProcess, MemberSettings
from agent.supervise import alive_in
from manager.ca.authority import Authority
from manager.store.etcd.settings import EtcdSettings
from manager.store.member import Members
from shoal.errors import ShoalError, Unavailable
from shoal.model.node import Role
from shoal.settings import Paths
from shoal.tls import MANAGER_NAME, Identity
from tests import etcd
from tests.contract.store.steps import put
from tests.contract.store.witness import CLOCK, at_last, opened

DAY_NS = 86_400 * 10**9


class Hosts:
    """Managers on one address, each with ports, files and an identity of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[tuple[EtcdProcess, asyncio.Task[None]]] = []
        self.authority = Authority.create("c1", CLOCK.now_ns())

    def identity(self, name: str, role: Role = Role.MANAGER) -> Identity:
        return self.authority.new_identity(
            node_id=name, cluster_id="c1", role=role, life_ns=DAY_NS, now_ns=CLOCK.now_ns(), address="127.0.0.1"
        )

    def settings(self, name: str) -> MemberSettings:
        client, peer = etcd.free_ports(2)
        return MemberSettings(name, "127.0.0.1", "c1", client_port=client, peer_port=peer)

    def paths(self, name: str) -> Paths:
        return Paths(self._folder / name, self._folder / name / "run")

    async def start(self, settings: MemberSettings) -> EtcdProcess:
        process = EtcdProcess(settings, self.paths(settings.name), clock=CLOCK)
        await process.show(self.identity(settings.name))
        self._running.append((process, asyncio.create_task(process.run())))
        return process

    async def three(self) -> list[EtcdProcess]:
        """One that founds, and two that come as learners and get their vote."""
        first = await self.start(self.settings("n1"))
        await first.ready(self.identity("n1"))
        processes = [first]
        for name in ("n2", "n3"):
            settings = self.settings(name)
            async with opened(self.way(processes)) as store:
                members = Members(store.client, CLOCK)
                learner = await members.add_learner(settings.peer_url)
                known = [(each.name or name, each.peer_url) for each in await members.list()]
                process = await self.start(_joining(settings, known))
                await members.promote(learner.id, within_s=30)
            await process.ready(self.identity(name))
            processes.append(process)
        return processes

    def way(self, processes: list[EtcdProcess], identity: Identity | None = None) -> EtcdSettings:
        """How a manager comes in."""
        shown = identity or self.identity("n1")
        return EtcdSettings(
            tuple(process.settings.endpoint for process in processes),
            ca_pem=shown.root_ca_pem,
            certificate_pem=shown.certificate_pem,
            key_pem=shown.key_pem,
            server_name=MANAGER_NAME,
        )

    def kill(self, name: str) -> None:
        process = alive_in(self.paths(name).run / "etcd.pid")
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)

    async def end(self) -> None:
        for process, running in self._running:
            await process.stop()
            await running


def _joining(settings: MemberSettings, peers: list[tuple[str, str]]) -> MemberSettings:
    return MemberSettings(
        settings.name,
        settings.address,
        settings.cluster_id,
        tuple(peers),
        joins=True,
        client_port=settings.client_port,
        peer_port=settings.peer_port,
    )


@pytest.fixture
async def hosts(tmp_path):
    hosts = Hosts(tmp_path)
    yield hosts
    await hosts.end()


async def test_three_managers_hold_one_store_and_the_loss_of_its_leader_is_short(hosts):
    processes = await hosts.three()
    async with opened(hosts.way(processes)) as store:
        members = Members(store.client, CLOCK)
        await store.txn(put("/before"))
        listed = await members.list()
        assert [(each.name, each.learner) for each in listed] == [("n1", False), ("n2", False), ("n3", False)]
        health = await members.health(listed)
        leader = next(each.name for each in listed if each.id == health[0].leader_id)
        hosts.kill(leader)
        began = time.monotonic()
        await at_last(store, "/after")
        assert time.monotonic() - began < 30
        async with asyncio.timeout(60):  # it comes back by itself, with its data
            while any(each.trouble for each in await members.health(listed)):
                await asyncio.sleep(0.1)


async def test_only_managers_get_in(hosts):
    process = await hosts.start(hosts.settings("n1"))
    await process.ready(hosts.identity("n1"))
    with pytest.raises(Unavailable, match="it refuses our certificate"):
        async with opened(hosts.way([process], hosts.identity("w1", Role.WORKER))):
            pass
    peer = ("127.0.0.1", process.settings.peer_port)
    assert await shakes_hands(hosts.identity("n2"), peer)
    assert not await shakes_hands(hosts.identity("w1", Role.WORKER), peer)


async def test_what_is_on_the_disk_is_for_root_alone(hosts):
    process = await hosts.start(hosts.settings("n1"))
    await process.ready(hosts.identity("n1"))
    folder = hosts.paths("n1").etcd
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "identity.pem").stat().st_mode) == 0o600


async def test_a_renewed_certificate_is_shown_without_a_restart(hosts):
    process = await hosts.start(hosts.settings("n1"))
    own = hosts.identity("n1")
    await process.ready(own)
    pid = alive_in(hosts.paths("n1").run / "etcd.pid")
    client = ("127.0.0.1", process.settings.client_port)
    renewed = hosts.identity("n1")
    assert await shown(own, client) != renewed.leaf.serial_number
    await process.show(renewed)
    assert await shown(own, client) == renewed.leaf.serial_number
    assert alive_in(hosts.paths("n1").run / "etcd.pid") == pid


async def test_another_root_of_trust_restarts_it(hosts):
    process = await hosts.start(hosts.settings("n1"))
    await process.ready(hosts.identity("n1"))
    async with opened(hosts.way([process])) as store:
        await store.txn(put("/a"))
    hosts.authority = Authority.create("c1", CLOCK.now_ns())
    await process.show(hosts.identity("n1"))
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(ShoalError):
                async with opened(hosts.way([process])) as store:
                    assert [record.key for record in (await store.read("/")).records] == ["/a"]
                    break


async def test_another_root_restarts_one_member_after_the_other(hosts):
    processes = await hosts.three()
    files = [hosts.paths(process.settings.name).run / "etcd.pid" for process in processes]
    before = [alive_in(file) for file in files]
    both = hosts.authority.root_ca_pem + Authority.create("c1", CLOCK.now_ns()).root_ca_pem
    shown = [msgspec.structs.replace(hosts.identity(process.settings.name), root_ca_pem=both) for process in processes]
    await asyncio.gather(*(process.show(identity) for process, identity in zip(processes, shown, strict=True)))
    off = 0
    async with opened(hosts.way(processes)) as store, asyncio.timeout(120):
        while any(alive_in(file) in (None, old) for file, old in zip(files, before, strict=True)):
            off = max(off, sum(alive_in(file) is None for file in files))
            await asyncio.sleep(0.02)
        assert off <= 1
        await store.txn(put("/after"))


async def test_one_that_cannot_run_says_why(hosts):
    settings = hosts.settings("n1")
    with socket.create_server(("0.0.0.0", settings.client_port)):
        process = await hosts.start(settings)
        with pytest.raises(ShoalError, match=r"^etcd cannot run: .*: bind: address already in use$"):
            await process.ready(hosts.identity("n1"))


async def test_after_the_others_were_lost_one_goes_on_alone(hosts):
    processes = await hosts.three()
    async with opened(hosts.way(processes)) as store:
        await store.txn(put("/kept"))
    for process in processes:
        await process.stop()
    kept = processes[1].settings
    alone = MemberSettings(
        kept.name, kept.address, "c1", alone=True, client_port=kept.client_port, peer_port=kept.peer_port
    )
    process = await hosts.start(alone)
    await process.ready(hosts.identity("n2"))
    async with opened(hosts.way([process])) as store:
        assert [record.key for record in (await store.read("/")).records] == ["/kept"]
        assert [each.name for each in await Members(store.client, CLOCK).list()] == ["n2"]


async def test_forgotten_nothing_of_it_is_left(hosts):
    process = await hosts.start(hosts.settings("n1"))
    await process.ready(hosts.identity("n1"))
    await process.forget()
    assert not hosts.paths("n1").etcd.exists()
    assert alive_in(hosts.paths("n1").run / "etcd.pid") is None


def _context(identity: Identity, folder: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=identity.root_ca_pem)
    chain = folder / "chain.pem"
    chain.write_text(identity.certificate_pem + identity.key_pem)
    context.load_cert_chain(chain)
    return context


async def shown(identity: Identity, address: tuple[str, int]) -> int:
    """The serial number of the certificate that a server shows to `identity`."""
    with tempfile.TemporaryDirectory() as folder:
        context = _context(identity, Path(folder))
    _, writer = await asyncio.open_connection(*address, ssl=context, server_hostname=MANAGER_NAME)
    try:
        der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(der).serial_number
    finally:
        writer.transport.abort()


async def shakes_hands(identity: Identity, address: tuple[str, int]) -> bool:
    """Whether a server goes on to talk with `identity` after it has seen its certificate."""
    with tempfile.TemporaryDirectory() as folder:
        context = _context(identity, Path(folder))
    try:
        reader, writer = await asyncio.open_connection(*address, ssl=context, server_hostname=MANAGER_NAME)
        writer.write(b"GET /version HTTP/1.0\r\n\r\n")
        async with asyncio.timeout(60):
            answered = bool(await reader.read(1))
        writer.transport.abort()
    except (ssl.SSLError, ConnectionError):
        return False
    return answered
