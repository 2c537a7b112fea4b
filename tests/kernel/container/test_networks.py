"""Network modes of real containers: what they share, what they publish, what is refused."""

import asyncio
import socket

import pytest

from shoal.errors import Conflict, Exhausted, InvalidArgument, NotFound
from shoal.model.container import Container, ContainerSpec, ContainerState
from shoal.model.network import NetworkAttachment, NetworkSpec, Port

pytestmark = pytest.mark.kernel

SERVER = ("sh", "-c", "while true; do echo hello from $HOSTNAME | nc -l -p 80; done")


def on(*names):
    return tuple(NetworkAttachment(network=each) for each in names)


def answer(address, port):
    with socket.create_connection((address, port), timeout=3) as connection:
        connection.settimeout(3)
        return connection.recv(100)


async def asked(address, port):
    """What the server says, once it listens."""
    async with asyncio.timeout(90):
        while True:
            try:
                found = await asyncio.to_thread(answer, address, port)
            except OSError:
                found = b""
            if found:
                return found
            await asyncio.sleep(0.05)


async def test_the_bridge_gives_an_address_of_its_own(engine):
    container = await engine.run(*SERVER)
    (address,) = container.status.addresses
    assert address.network_name == "bridge"
    assert await asked(address.address, 80) == f"hello from {container.meta.id[:12]}\n".encode()
    await engine.containers.stop(container.name, timeout_s=0)
    assert engine.containers.get(container.name).status.addresses == ()


async def test_published_ports_answer_and_are_free_again(engine):
    container = await engine.run(*SERVER, ports=(Port(target=80, published=18080),), name="web")
    (port,) = container.status.ports
    assert (port.published, port.target) == (18080, 80)
    other = await engine.run(*SERVER, ports=(Port(target=80, published=18080),), name="other", start=False)
    with pytest.raises(Exhausted, match="port is already allocated"):
        await engine.containers.start("other")
    assert engine.containers.get("other").status.state == ContainerState.CREATED
    await engine.containers.remove("web", force=True)
    started = await engine.containers.start(other.name)
    assert started.status.ports[0].published == 18080


async def test_publish_all_takes_free_ports(engine):
    await engine.add("web", "EXPOSE 80", "EXPOSE 53/udp")
    container = await engine.containers.create(
        Container(spec=ContainerSpec(image="web", args=("sleep", "100"))), publish_all=True
    )
    started = await engine.containers.start(container.name)
    assert sorted(each.target for each in started.status.ports) == [53, 80]
    assert all(each.published >= 32768 for each in started.status.ports)


async def test_no_network_has_only_loopback(engine):
    assert (await engine.output("ls", "/sys/class/net", networks=on("none")))[1].split() == [b"lo"]


async def test_the_hosts_network_is_the_hosts(engine):
    own = await asyncio.to_thread(lambda: sorted(name for _, name in socket.if_nameindex()))
    _, out, _ = await engine.output(
        "sh", "-c", "for each in /proc/net/dev; do grep : $each; done; hostname", networks=on("host")
    )
    *devices, hostname = out.decode().strip().splitlines()
    assert sorted(each.split(":")[0].strip() for each in devices) == own
    assert hostname == socket.gethostname()


async def test_a_container_can_share_anothers_network(engine):
    owner = await engine.run(*SERVER, name="owner")
    code, out, _ = await engine.output(
        "sh", "-c", "nc 127.0.0.1 80; hostname", name="guest", networks=on("container:owner")
    )
    assert out.decode().splitlines()[-1] == owner.meta.id[:12]
    assert code == 0
    await engine.containers.stop("owner", timeout_s=0)
    with pytest.raises(Conflict, match=f"cannot join network of a non running container: {owner.meta.id}"):
        await engine.containers.start("guest")


async def test_sharing_and_publishing_do_not_go_together(engine):
    await engine.run("sleep", "100", name="owner")
    with pytest.raises(InvalidArgument, match="port publishing and the container type network mode"):
        await engine.run("true", networks=on("container:owner"), ports=(Port(target=80),))
    with pytest.raises(NotFound, match="No such container: nobody"):
        await engine.run("true", networks=on("container:nobody"))


async def test_names_resolve_on_a_network_of_the_users(engine):
    await engine.networks.create(NetworkSpec(name="mine", driver="bridge"))
    await engine.run(*SERVER, name="server", networks=on("mine"))
    container = await engine.run(
        "sh", "-c", "until nc server 80; do sleep 0.1; done", name="client", networks=on("mine"), start=False
    )
    attachment = await engine.containers.visits.attach(container.name, start=True)
    chunk = await asyncio.wait_for(attachment.read(), 60)
    while chunk is not None and b"hello from" not in chunk[1]:
        chunk = await asyncio.wait_for(attachment.read(), 60)
    assert chunk is not None
    await attachment.close()


async def test_a_network_that_is_not_there(engine):
    with pytest.raises(NotFound, match="network nope not found"):
        await engine.run("true", networks=on("nope"))


async def test_a_restart_by_hand_publishes_again(engine):
    container = await engine.run(*SERVER, ports=(Port(target=80),))
    await engine.containers.stop(container.name, timeout_s=0)
    again = await engine.containers.start(container.name)
    assert again.status.ports[0].published >= 32768
    assert await asked("127.0.0.1", again.status.ports[0].published)


async def test_a_published_port_follows_from_a_network_that_is_left_to_one_that_was_joined(engine):
    await engine.networks.create(NetworkSpec(name="other"))
    await engine.run(*SERVER, ports=(Port(target=80, published=18080),), name="web")
    await engine.containers.connect("web", NetworkAttachment(network="other"))
    await engine.containers.disconnect("web", "bridge")
    await engine.restart()
    (address,) = engine.containers.get("web").status.addresses
    assert address.network_name == "other"
    assert await asked(address.gateway, 18080)
    await engine.containers.disconnect("web", "other")
    assert engine.containers.get("web").status.addresses == ()
    with pytest.raises(Conflict, match="is not connected to network other"):
        await engine.containers.disconnect("web", "other")


async def test_names_on_a_network_that_was_joined_are_known_at_once(engine, shell):
    for name in ("one", "two"):
        await engine.networks.create(NetworkSpec(name=name))
    db = await engine.run("sleep", "100", name="db", networks=on("two"))
    await engine.run("sleep", "100", name="web", networks=on("one"))
    await engine.containers.connect("web", NetworkAttachment(network="two"))
    said = await shell("exec", "web", "busybox", "nslookup", "-type=a", "db")
    assert f"Address: {db.status.addresses[0].address}\n" in said.text


async def test_a_network_dangles_as_long_as_no_container_of_it_runs(engine, shell):
    await engine.networks.create(NetworkSpec(name="idle", driver="bridge"))
    await engine.networks.create(NetworkSpec(name="busy", driver="bridge"))
    await engine.run("sleep", "100", networks=on("busy"))

    async def listed(filter):
        return (await shell("network", "ls", "--filter", filter, "--format", "{{.Name}}")).text.split()

    assert await listed("dangling=true") == ["idle"]
    assert await listed("dangling=false") == ["bridge", "busy", "host", "none"]
    assert (await shell("network", "ls", "--filter", "dangling=perhaps")).code == 1


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"network": "bridge", "aliases": ("db",)}, "only supported for user-defined networks"),
        ({"network": "back", "address": "10.77.0.255"}, "Address already in use"),
        ({"network": "back", "address": "10.77.0.1"}, "Address already in use"),
    ],
)
async def test_what_a_network_cannot_give_is_refused(engine, wish, said):
    await engine.networks.create(NetworkSpec(name="back", driver="bridge", subnet="10.77.0.0/24"))
    with pytest.raises((InvalidArgument, Conflict), match=said):
        await engine.run("true", networks=(NetworkAttachment(**wish),))
