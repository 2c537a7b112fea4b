"""Two hosts and an overlay between them: the way between containers, VIPs, the mesh, names."""

from __future__ import annotations

import pytest

from shoal.errors import InvalidArgument
from shoal.model.assignment import NetworkAssignment, NetworkPeer
from shoal.model.base import Meta
from shoal.model.network import (
    Backend,
    Endpoint,
    Network,
    NetworkScope,
    NetworkSpec,
    Port,
    PortProtocol,
)
from tests.kernel.network.conftest import words

pytestmark = pytest.mark.kernel

VIP = "10.0.1.2"
BLOCKS = {"n1": "10.0.1.64/26", "n2": "10.0.1.128/26", "n3": "10.0.1.192/26"}


def network(name="web", subnet="10.0.1.0/24", vni=4097, **spec):
    return Network(
        meta=Meta(id=f"id-of-{name}"),
        spec=NetworkSpec(name=name, driver="overlay", **spec),
        scope=NetworkScope.SWARM,
        subnet=subnet,
        vni=vni,
    )


def assignment(host, hosts, blocks=BLOCKS, **about):
    peers = tuple(
        NetworkPeer(node_id=each.name, address=each.address, block=blocks[each.name])
        for each in hosts
        if each is not host
    )
    return NetworkAssignment(network=network(**about), block=blocks[host.name], peers=peers)


def endpoint(*backends, ports=(), address=VIP, name="shop", network_id="id-of-web", aliases=()):
    return Endpoint(
        service_id=f"id-of-{name}",
        service_name=name,
        network_id=network_id,
        address=address,
        ports=ports,
        aliases=aliases,
        backends=tuple(
            Backend(task_id=backend.name, node_id="n", slot=slot, address=backend.address)
            for slot, backend in enumerate(backends, 1)
        ),
    )


class Pair:
    """Two hosts that were assigned the same overlay."""

    def __init__(self, lab):
        self.hosts = [lab.host("n1"), lab.host("n2")]
        for host in self.hosts:
            host.open()
        self.assign()

    def assign(self, *endpoints, hosts=None):
        for host in self.hosts:
            host.do(host.networks.assign([assignment(host, hosts or self.hosts)], endpoints))


@pytest.fixture
def pair(lab):
    return Pair(lab)


def answers(place, address, port, times=12, **options):
    return {place.ask(address, port, **options)[0] for _ in range(times)}


def test_containers_on_different_hosts_reach_each_other(pair):
    n1, n2 = pair.hosts
    one, two = n1.container("one", "web"), n2.container("two", "web")
    assert (one.address, two.address) == ("10.0.1.66", "10.0.1.130")
    assert one.ping(two.address)
    two.serve(80)
    assert one.ask(two.address, 80) == ["two", one.address], "as itself, without NAT"
    assert n1.ping(two.address), "the host itself reaches every container"


@pytest.mark.parametrize("lab", ["1", "0"], indirect=True)
def test_containers_on_one_host_reach_each_other(pair):
    n1, _ = pair.hosts
    one, two = n1.container("one", "web"), n1.container("two", "web")
    two.serve(80)
    assert one.ask(two.address, 80) == ["two", one.address]


def test_full_packets_pass_and_larger_ones_are_told(pair):
    n1, n2 = pair.hosts
    one, two = n1.container("one", "web"), n2.container("two", "web")
    assert one.ping(two.address, payload_bytes=1450 - 20 - 8, whole=True)
    assert not one.ping(two.address, payload_bytes=1450 - 20 - 8 + 2, whole=True)


def test_a_lot_of_data_arrives_whole(pair):
    n1, n2 = pair.hosts
    one, two = n1.container("one", "web"), n2.container("two", "web")
    two.serve(80)
    with one.dial(two.address, 80) as connection:
        connection.recv(100)
        for _ in range(50):
            connection.sendall(b"x" * 20000)
            left = 20000
            while left:
                left -= len(connection.recv(left))


def test_containers_reach_the_outside_and_not_what_nobody_has(lab, pair):
    outside = lab.host("outside")
    outside.serve(80)
    n1, _ = pair.hosts
    one = n1.container("one", "web")
    assert one.ask(outside.address, 80) == ["outside", n1.address]
    with pytest.raises(OSError, match=r"No route|unreachable"):
        one.ask("10.0.1.200", 80)


@pytest.mark.parametrize("lab", ["1", "0"], indirect=True)
def test_vip_is_balanced_over_both_hosts_and_itself(pair):
    n1, n2 = pair.hosts
    tasks = [n1.container("t1", "web"), n1.container("t2", "web"), n2.container("t3", "web")]
    for task in tasks:
        task.serve(80)
    pair.assign(endpoint(*tasks))
    client = n1.container("client", "web")
    assert answers(client, VIP, 80) == {"t1", "t2", "t3"}
    assert answers(tasks[0], VIP, 80) == {"t1", "t2", "t3"}, "a task reaches itself through its service"
    assert answers(tasks[2], VIP, 80) == {"t1", "t2", "t3"}


def test_vip_over_udp(pair):
    n1, n2 = pair.hosts
    udp = PortProtocol.UDP
    tasks = [n1.container("t1", "web"), n2.container("t2", "web")]
    for task in tasks:
        task.serve(53, protocol=udp)
    pair.assign(endpoint(*tasks))
    assert answers(n1.container("client", "web"), VIP, 53, protocol=udp) == {"t1", "t2"}


def test_a_udp_conversation_moves_on_when_its_backend_is_gone(pair):
    n1, n2 = pair.hosts
    udp = PortProtocol.UDP
    t1, t2 = n1.container("t1", "web"), n2.container("t2", "web")
    for task in (t1, t2):
        task.serve(53, protocol=udp)
    pair.assign(endpoint(t1, t2))
    client = n1.container("client", "web")
    with client.dial(VIP, 53, protocol=udp) as conversation:
        served = []
        for left in ((t1, t2), (t2,), (t1,)):
            pair.assign(endpoint(*left))
            conversation.send(b"who?")
            served.append(conversation.recv(100).decode().split()[0])
    assert served[1:] == ["t2", "t1"]


def test_open_connections_survive_a_change_of_backends(pair):
    n1, n2 = pair.hosts
    t1, t2 = n1.container("t1", "web"), n2.container("t2", "web")
    for task in (t1, t2):
        task.serve(80)
    pair.assign(endpoint(t1, t2))
    client = n1.container("client", "web")
    connections = [client.dial(VIP, 80) for _ in range(2)]
    served = {connection.recv(100).split()[0] for connection in connections}
    assert served == {b"t1", b"t2"}
    pair.assign(endpoint(t2))
    assert answers(client, VIP, 80) == {"t2"}
    for connection in connections:
        connection.sendall(b"still there?")
        assert connection.recv(100) == b"still there?"
        connection.close()


def test_service_without_backends_refuses_at_once(pair):
    n1, _ = pair.hosts
    pair.assign(endpoint())
    with pytest.raises(OSError, match=r"No route|unreachable"):
        n1.container("client", "web").ask(VIP, 80)


@pytest.mark.parametrize("lab", ["1", "0"], indirect=True)
def test_mesh_port_on_every_host(lab, pair):
    outside = lab.host("outside")
    n1, n2 = pair.hosts
    t1, t2 = n1.container("t1", "web"), n2.container("t2", "web")
    for task in (t1, t2):
        task.serve(80)
        task.serve(80, protocol=PortProtocol.UDP)
    ports = (Port(target=80, published=8080), Port(protocol=PortProtocol.UDP, target=80, published=8080))
    pair.assign(endpoint(t1, t2, ports=ports))
    for host in pair.hosts:
        assert answers(outside, host.address, 8080) == {"t1", "t2"}
        assert answers(outside, host.address, 8080, protocol=PortProtocol.UDP) == {"t1", "t2"}
        assert answers(host, "127.0.0.1", 8080) == {"t1", "t2"}
        assert answers(host, host.address, 8080) == {"t1", "t2"}
    assert answers(n1, n2.address, 8080) == {"t1", "t2"}
    plain = n1.container("plain")
    assert answers(plain, "172.17.0.1", 8080) == {"t1", "t2"}, "from another network, through the host"
    assert answers(t1, n1.address, 8080) == {"t1", "t2"}, "from a task itself"
    # A host that runs no task serves the port too.
    pair.assign(endpoint(t2, ports=ports))
    assert answers(outside, n1.address, 8080) == {"t2"}


def test_mesh_port_is_not_given_to_a_container(pair):
    n1, _ = pair.hosts
    t1 = n1.container("t1", "web")
    pair.assign(endpoint(t1, ports=(Port(target=80, published=8080),)))
    with pytest.raises(Exception, match="port is already allocated"):
        n1.container("thief", ports=(Port(target=80, published=8080),))


def test_host_mode_port_of_a_task_on_the_overlay(lab, pair):
    outside = lab.host("outside")
    n1, _ = pair.hosts
    task = n1.container("task", "web", ports=(Port(target=80, published=9090),))
    task.serve(80)
    assert outside.ask(n1.address, 9090) == ["task", outside.address]
    assert n1.ask("127.0.0.1", 9090)[0] == "task"


def test_task_on_overlay_and_bridge(lab, pair):
    outside = lab.host("outside")
    n1, n2 = pair.hosts
    both = n1.container("both", "bridge", "web")
    both.serve(80)
    two = n2.container("two", "web")
    overlay_address = both.connection.addresses[1].address
    assert two.ask(overlay_address, 80) == ["both", two.address]
    pair.assign(endpoint(both, ports=(Port(target=80, published=8080),), address=""))
    assert outside.ask(n1.address, 8080)[0] == "both"


def test_names_of_services_on_both_hosts(pair, resolve):
    n1, n2 = pair.hosts
    t1, t2 = n1.container("shop.1.t1", "web"), n2.container("shop.2.t2", "web")
    t1.name, t2.name = "t1", "t2"
    dnsrr = endpoint(t1, t2, address="", name="rr")
    pair.assign(endpoint(t1, t2, aliases=("store",)), dnsrr)
    for task in (t1, t2):
        server = task.connection.nameservers[0]
        assert server in ("10.0.1.65", "10.0.1.129")
        assert resolve(task, server, "shop") == [VIP]
        assert resolve(task, server, "store.web") == [VIP]
        assert resolve(task, server, "tasks.shop") == sorted([t1.address, t2.address])
        assert resolve(task, server, "rr") == sorted([t1.address, t2.address])
        assert resolve(task, server, "shop.2.t2") == [t2.address]
        assert resolve(task, server, "2.1.0.10.in-addr.arpa", "PTR") == ["shop.web."]
        assert resolve(task, server, "nobody") == ["SERVFAIL"]


def test_overlays_are_isolated_even_through_vips(pair):
    n1, n2 = pair.hosts
    blocks = {"n1": "10.0.2.64/26", "n2": "10.0.2.128/26"}
    secret = endpoint(address="10.0.2.2", name="secret", network_id="id-of-back")
    for host in pair.hosts:
        second = assignment(host, pair.hosts, blocks, name="back", subnet="10.0.2.0/24", vni=4098)
        host.do(host.networks.assign([assignment(host, pair.hosts), second], [secret]))
    db, web = n2.container("db", "back"), n1.container("web", "web")
    db.serve(80)
    secret = endpoint(db, address="10.0.2.2", name="secret", network_id="id-of-back")
    for host in pair.hosts:
        second = assignment(host, pair.hosts, blocks, name="back", subnet="10.0.2.0/24", vni=4098)
        host.do(host.networks.assign([assignment(host, pair.hosts), second], [secret]))
    assert n1.container("friend", "back").ask("10.0.2.2", 80)[0] == "db"
    for address in (db.address, "10.0.2.2"):
        with pytest.raises(OSError, match=r"No route|unreachable"):
            web.ask(address, 80)


def test_assignment_follows_peers_and_removal_removes_everything(lab, pair):
    n1, n2 = pair.hosts
    n3 = lab.host("n3")
    n3.open()
    before = n3.nft()
    pair.hosts.append(n3)
    pair.assign()
    one, three = n1.container("one", "web"), n3.container("three", "web")
    assert one.ping(three.address)
    # n3 leaves, and n2 comes back from elsewhere with another block.
    n2.do(n2.networks.assign([], []))
    moved = {"n1": BLOCKS["n1"], "n2": BLOCKS["n3"]}
    for host in (n1, n2):
        host.do(host.networks.assign([assignment(host, [n1, n2], moved)], []))
    two = n2.container("two", "web")
    assert two.address == "10.0.1.194"
    assert one.ping(two.address)
    n3.do(n3.networks.disconnect(three.id))
    n3.do(n3.networks.assign([], []))
    assert words(n3.nft()) == words(before)
    with n3.kernel() as kernel:
        assert not [name for name in kernel.links() if name.startswith(("shb", "shx"))]
        assert not [route for route in kernel.routes() if route.protocol == 83]


def test_assigning_twice_changes_nothing(pair):
    n1, _ = pair.hosts

    def state():
        with n1.kernel() as kernel:
            links = {name for name in kernel.links() if not name.startswith("shv")}
            return (links, kernel.routes(), kernel.neighbours(), kernel.forwards(), words(n1.nft()))

    t1 = n1.container("t1", "web")
    pair.assign(endpoint(t1, ports=(Port(target=80, published=8080),)))
    before = state()
    pair.assign(endpoint(t1, ports=(Port(target=80, published=8080),)))
    assert state() == before
    n1.close()
    n1.open()
    n1.do(n1.networks.adopt({t1.id: None}))
    assert state() == before
    pair.assign(endpoint(t1, ports=(Port(target=80, published=8080),)))
    assert state() == before


def test_agents_death_interrupts_no_service(lab, pair, resolve):
    outside = lab.host("outside")
    n1, n2 = pair.hosts
    t1, t2 = n1.container("t1", "web"), n2.container("t2", "web")
    for task in (t1, t2):
        task.serve(80)
    pair.assign(endpoint(t1, t2, ports=(Port(target=80, published=8080),)))
    n1.close()
    assert answers(outside, n1.address, 8080) == {"t1", "t2"}
    n1.open()
    assert answers(outside, n1.address, 8080) == {"t1", "t2"}, "before any manager said a word"
    assert answers(t1, VIP, 80) == {"t1", "t2"}
    assert resolve(t1, t1.connection.nameservers[0], "shop") == [VIP]


def test_a_network_that_cannot_be_does_not_take_the_others_with_it(pair):
    n1, n2 = pair.hosts
    bad = NetworkAssignment(network=network(name="bad", vni=5000), block="10.9.9.0/26")
    good = assignment(n1, pair.hosts)
    with pytest.raises(InvalidArgument, match=r"network bad: block 10\.9\.9\.0/26"):
        n1.do(n1.networks.assign([bad, good], []))
    one, two = n1.container("one", "web"), n2.container("two", "web")
    assert one.ping(two.address)


def test_a_service_that_cannot_be_changes_nothing(pair):
    n1, _ = pair.hosts
    t1 = n1.container("t1", "web")
    t1.serve(80)
    pair.assign(endpoint(t1))
    before = n1.nft()
    t1.address = "10.0.1.66 }; flush ruleset"
    with pytest.raises(InvalidArgument, match="service shop: the manager sent address"):
        n1.do(n1.networks.assign([assignment(n1, pair.hosts)], [endpoint(t1)]))
    n1.close()
    n1.open()
    assert words(n1.nft()) == words(before)
