"""A host of its own: containers on bridges, published ports, the way out, isolation, names."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import time
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from agent.network import netlink
from shoal.codec import pack
from shoal.errors import Conflict, Exhausted, InvalidArgument, NotFound, PermissionDenied
from shoal.ids import new_id
from shoal.model.base import Meta
from shoal.model.network import Network, NetworkAttachment, NetworkSpec, Port, PortProtocol
from tests.kernel.network.conftest import inside, words

pytestmark = pytest.mark.kernel


@pytest.fixture
def host(lab):
    host = lab.host("n1")
    host.open()
    return host


def test_containers_reach_each_other_and_their_gateway(host):
    one, two = host.container("one"), host.container("two")
    assert (one.address, two.address) == ("172.17.0.2", "172.17.0.3")
    assert one.connection.addresses[0].gateway == "172.17.0.1"
    assert one.ping("172.17.0.1")
    assert one.ping(two.address)
    two.serve(80)
    assert one.ask(two.address, 80) == ["two", one.address]


def test_no_link_gives_itself_an_ipv6_address(host):
    def modes() -> dict[str, str]:
        found = Path("/proc/sys/net/ipv6/conf").glob("*/addr_gen_mode")  # none where the kernel has no IPv6
        return {path.parent.name: path.read_text().strip() for path in found}

    container = host.container("one")
    ours = {name: mode for name, mode in inside(host.fd, modes).items() if name.startswith("shv")}
    assert set(ours.values()) <= {"1"}
    assert inside(container.fd, modes).get("eth0", "1") == "1"


def test_the_outside_sees_the_host_not_the_container(lab, host):
    outside = lab.host("outside")
    outside.serve(80)
    # The outside knows no way to 172.17.0.0/16, so only a masqueraded packet is answered; the underlay is direct.
    assert host.container("one").ask(outside.address, 80) == ["outside", host.address]


@pytest.mark.parametrize("lab", ["1", "0"], indirect=True)
def test_published_port_is_reached_from_everywhere(lab, host):
    outside = lab.host("outside")
    web = host.container("web", ports=(Port(target=80, published=8080),))
    web.serve(80)
    other = host.container("other")
    assert outside.ask(host.address, 8080) == ["web", outside.address]
    assert host.ask("127.0.0.1", 8080)[0] == "web"
    assert host.ask(host.address, 8080)[0] == "web"
    assert other.ask("172.17.0.1", 8080)[0] == "web"
    assert web.ask(host.address, 8080)[0] == "web", "a container reaches itself through its own port"


def test_published_udp_port(lab, host):
    outside = lab.host("outside")
    udp = PortProtocol.UDP
    web = host.container("dns", ports=(Port(protocol=udp, target=53, published=5353),))
    web.serve(53, protocol=udp)
    assert outside.ask(host.address, 5353, protocol=udp) == ["dns", outside.address]


def test_a_udp_asker_who_was_there_first_is_heard(lab, host):
    outside = lab.host("outside")
    udp = PortProtocol.UDP
    with outside.dial(host.address, 5353, protocol=udp) as asker:
        asker.send(b"too early")
        with pytest.raises(ConnectionRefusedError):
            asker.recv(100)
        for name in ("first", "second"):
            container = host.container(name, ports=(Port(protocol=udp, target=53, published=5353),))
            container.serve(53, protocol=udp)
            asker.send(b"who?")
            assert asker.recv(100).decode().split()[0] == name
            host.do(host.networks.disconnect(container.id))


def test_port_published_on_one_address_only(lab, host):
    outside = lab.host("outside")
    web = host.container("web", ports=(Port(target=80, published=8080, host_address="127.0.0.1"),))
    web.serve(80)
    assert host.ask("127.0.0.1", 8080)[0] == "web"
    with pytest.raises(ConnectionRefusedError):
        outside.ask(host.address, 8080)


def test_busy_port_is_refused_and_leaves_nothing(host):
    first = host.container("first", ports=(Port(target=80, published=8080),))
    before = host.nft()
    with pytest.raises(Exhausted, match=r"Bind for 0\.0\.0\.0:8080 failed: port is already allocated"):
        host.container("second", ports=(Port(target=81, published=8081), Port(target=80, published=8080)))
    assert words(host.nft()) == words(before)
    host.do(host.networks.disconnect(first.id))
    again = host.container("third", ports=(Port(target=81, published=8081), Port(target=80, published=8080)))
    assert {port.published for port in again.connection.ports} == {8080, 8081}


def test_port_held_by_a_process_of_the_host_is_refused(host):
    host.serve(8080)
    with pytest.raises(Exhausted, match=r"port is already allocated.*process of this host"):
        host.container("web", ports=(Port(target=80, published=8080),))
    free = host.container("free", ports=(Port(target=80),))
    assert 32768 <= free.connection.ports[0].published <= 60999


def test_port_on_a_foreign_address_is_refused(host):
    with pytest.raises(InvalidArgument, match="cannot assign requested address"):
        host.container("web", ports=(Port(target=80, published=8080, host_address="203.0.113.9"),))


def test_unpublished_ports_are_closed_to_the_outside(lab, host):
    outside = lab.host("outside")
    web = host.container("web")
    web.serve(80)
    outside.route("172.17.0.0/16", host.address)
    with pytest.raises(OSError, match=r"unreachable|No route"):
        outside.ask(web.address, 80)
    assert host.ask(web.address, 80)[0] == "web"


def test_networks_are_isolated_from_each_other(host):
    host.do(host.networks.create(NetworkSpec(name="front")))
    host.do(host.networks.create(NetworkSpec(name="back")))
    web, db = host.container("web", "front"), host.container("db", "back")
    both = host.container("both", "front", "back")
    db.serve(5432)
    with pytest.raises(OSError, match=r"unreachable|No route"):
        web.ask(db.address, 5432)
    assert both.ask(db.address, 5432)[0] == "db"


def test_internal_network_has_no_way_out(lab, host):
    outside = lab.host("outside")
    outside.serve(80)
    host.do(host.networks.create(NetworkSpec(name="vault", internal=True)))
    one, two = host.container("one", "vault"), host.container("two", "vault", ports=(Port(target=80, published=80),))
    two.serve(80)
    assert one.ask(two.address, 80)[0] == "two"
    assert two.connection.ports == ()
    with pytest.raises(OSError, match="unreachable"):
        one.ask(outside.address, 80)


def test_containers_cannot_reach_the_hosts_loopback(host):
    host.serve(9000, "127.0.0.1")
    one = host.container("one")
    with one.kernel() as kernel:
        kernel.do(netlink.delete_address(1, IPv4Interface("127.0.0.1/8")))
    one.route("127.0.0.0/8", "172.17.0.1")
    with pytest.raises(OSError):
        one.ask("127.0.0.1", 9000, timeout_s=0.3)


def test_names_on_a_user_network(host, resolve):
    host.do(host.networks.create(NetworkSpec(name="app")))
    web = host.container("web", "app", aliases=("www",))
    gateway = web.connection.nameservers[0]
    assert web.connection.options == ("ndots:0",)
    assert web.connection.search == ("example.test",)
    db = host.container("db", "app")
    for name in ("db", "DB", "db.app", db.id[:12]):
        assert resolve(web, gateway, name) == [db.address]
    assert resolve(db, gateway, "www") == [web.address]
    assert resolve(db, gateway, "www", tcp=True) == [web.address]
    assert resolve(db, gateway, "www", "AAAA") == []
    reverse = ".".join(reversed(web.address.split("."))) + ".in-addr.arpa"
    assert resolve(db, gateway, reverse, "PTR") == ["web.app."]
    host.do(host.networks.disconnect(web.id))
    assert resolve(db, gateway, "www") == ["SERVFAIL"], "there is no upstream here"


def test_unknown_names_are_asked_upstream(lab, host, resolve):
    upstream = lab.host("upstream")
    upstream.open()
    upstream.do(upstream.networks.create(NetworkSpec(name="corp", subnet="10.55.0.0/24")))
    known = upstream.container("intranet", "corp")
    upstream.nft("flush ruleset")  # which lets only the network's own containers ask
    host.route("10.55.0.0/24", upstream.address)
    (host.folder / "resolv.conf").write_text("nameserver 127.0.0.77\nnameserver 10.55.0.1\n")
    host.do(host.networks.create(NetworkSpec(name="app")))
    web = host.container("web", "app")
    gateway = web.connection.nameservers[0]
    assert resolve(web, gateway, "intranet") == [known.address]
    assert resolve(web, gateway, "intranet", tcp=True) == [known.address]
    assert host.container("plain").connection.nameservers == ("10.55.0.1",), "loopback servers are left out"


def test_only_containers_of_a_network_may_ask_its_resolver(host, resolve):
    host.do(host.networks.create(NetworkSpec(name="front")))
    host.do(host.networks.create(NetworkSpec(name="back")))
    web, db = host.container("web", "front"), host.container("db", "back")
    assert resolve(web, web.connection.nameservers[0], "web") == [web.address]
    with pytest.raises(Exception, match="timed out"):
        resolve(web, db.connection.nameservers[0], "db", timeout_s=0.3)


def test_a_container_on_two_networks_finds_the_names_of_both(host, resolve):
    host.do(host.networks.create(NetworkSpec(name="front")))
    host.do(host.networks.create(NetworkSpec(name="back")))
    db = host.container("db", "back")
    both = host.container("both", "front", "back")
    assert resolve(both, both.connection.nameservers[0], "db") == [db.address]


def test_resolver_comes_back_after_it_was_killed(host, resolve):
    host.do(host.networks.create(NetworkSpec(name="app")))
    web = host.container("web", "app")
    gateway = web.connection.nameservers[0]
    folder = host.folder / "run" / "network"
    with socket.socket(socket.AF_UNIX) as control:
        control.connect(str(folder / "resolver.sock"))
        control.sendall(b"hello\n")
        pid = json.loads(control.recv(1000))["pid"]
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while True:
        try:
            assert resolve(web, gateway, "web", timeout_s=1) == [web.address]
            break
        except Exception:
            assert time.monotonic() < deadline


def test_publishing_port_53_does_not_meet_the_resolver(lab, host, resolve):
    outside = lab.host("outside")
    host.do(host.networks.create(NetworkSpec(name="app")))
    udp = PortProtocol.UDP
    hole = host.container("hole", "app", ports=(Port(protocol=udp, target=53, published=53),))
    hole.serve(53, protocol=udp)
    assert outside.ask(host.address, 53, protocol=udp)[0] == "hole"
    assert resolve(hole, hole.connection.nameservers[0], "hole") == [hole.address]


def test_names_of_networks(host):
    names = [network.spec.name for network in host.networks.list()]
    assert sorted(names) == ["bridge", "host", "none"]
    made = host.do(host.networks.create(NetworkSpec(name="app")))
    assert made.subnet == "172.18.0.0/16"
    assert re.fullmatch("[0-9a-f]{64}", made.meta.id)
    with pytest.raises(Conflict, match="network with name app already exists"):
        host.do(host.networks.create(NetworkSpec(name="app")))
    with pytest.raises(Conflict, match="Pool overlaps"):
        host.do(host.networks.create(NetworkSpec(name="two", subnet="172.18.5.0/24")))
    with pytest.raises(PermissionDenied, match="pre-defined"):
        host.do(host.networks.remove("bridge"))
    with pytest.raises(NotFound, match="network nope not found"):
        host.do(host.networks.remove("nope"))
    with pytest.raises(NotFound, match="network nope not found"):
        host.container("x", "nope")
    web = host.container("web", "app")
    with pytest.raises(Conflict, match="has active endpoints: web"):
        host.do(host.networks.remove("app"))
    host.do(host.networks.disconnect(web.id))
    host.do(host.networks.remove(made.meta.id[:6]))
    with host.kernel() as kernel:
        assert not [name for name in kernel.links() if name.startswith("shl")]


def test_packets_are_as_large_as_the_network_says(host):
    with pytest.raises(InvalidArgument, match="from 68 to 65535, not 67"):
        host.do(host.networks.create(NetworkSpec(name="tiny", mtu=67)))
    host.do(host.networks.create(NetworkSpec(name="small", mtu=1280)))
    assert host.networks.get("small").mtu == 1280
    with host.container("web", "small").kernel() as kernel:
        assert kernel.links()["eth0"].mtu == 1280


def test_a_network_with_an_id_of_an_earlier_version_stays(lab):
    host = lab.host("n1")
    old = Network(
        meta=Meta(id=new_id()),
        spec=NetworkSpec(name="app", driver="bridge"),
        subnet="10.77.0.0/24",
        gateway="10.77.0.1",
    )
    folder = host.folder / "data" / "networks"
    folder.mkdir(parents=True)
    (folder / f"{old.meta.id}.network").write_bytes(pack(old))
    host.open()
    assert host.networks.get("app").meta.id == old.meta.id
    assert host.container("web", "app").address == "10.77.0.2"


def test_host_and_none(host):
    assert host.container("alone", "none").connection.addresses == ()
    connection = host.do(host.networks.connect("ab12", attachments=[NetworkAttachment("host")]))
    assert connection.netns_path == ""


def test_killed_agent_finds_everything_again(lab, host, resolve):
    outside = lab.host("outside")
    host.do(host.networks.create(NetworkSpec(name="app")))
    web = host.container("web", "app", ports=(Port(target=80, published=8080),))
    gone = host.container("gone", "app", ports=(Port(target=80, published=8081),))
    web.serve(80)
    conversation = outside.dial(host.address, 8080)
    assert conversation.recv(100).split()[0] == b"web"
    host.close()
    assert outside.ask(host.address, 8080)[0] == "web", "nobody is needed for a published port"
    assert resolve(web, web.connection.nameservers[0], "web") == [web.address], "nor for a name"
    host.open()
    host.do(host.networks.adopt({web.id: None}))
    conversation.sendall(b"still there?")
    assert conversation.recv(100) == b"still there?"
    conversation.close()
    assert outside.ask(host.address, 8080)[0] == "web"
    with pytest.raises(Exhausted):
        host.container("thief", ports=(Port(target=80, published=8080),))
    assert host.container("next", "app", ports=(Port(target=80, published=8081),)).address != web.address
    assert resolve(web, web.connection.nameservers[0], "gone") == ["SERVFAIL"]
    gone.shut()


def test_flushed_firewall_comes_back_with_the_next_change(lab, host):
    outside = lab.host("outside")
    web = host.container("web", ports=(Port(target=80, published=8080),))
    web.serve(80)
    host.nft("flush ruleset")
    with pytest.raises(ConnectionRefusedError):
        outside.ask(host.address, 8080)
    host.container("next", ports=(Port(target=80, published=8081),))
    assert outside.ask(host.address, 8080)[0] == "web"


def test_flushed_firewall_is_mended_without_a_change(lab, host):
    outside = lab.host("outside")
    web = host.container("web", ports=(Port(target=80, published=8080),))
    web.serve(80)
    before = host.nft()
    host.nft("flush ruleset")
    host.do(host.networks.mend())
    assert words(host.nft()) == words(before)
    assert outside.ask(host.address, 8080)[0] == "web"


def test_containers_get_through_a_firewall_that_forwards_nothing(lab, host):
    """Docker and ufw leave iptables' FORWARD chain with the policy drop."""
    outside = lab.host("outside")
    outside.serve(80)
    web, other = host.container("web", ports=(Port(target=80, published=8080),)), host.container("other")
    web.serve(80)
    host.nft("table ip filter { chain FORWARD { type filter hook forward priority filter; policy drop; }; }")
    with pytest.raises(TimeoutError):
        web.ask(outside.address, 80, timeout_s=0.3)
    host.do(host.networks.mend())
    assert web.ask(outside.address, 80) == ["outside", host.address]
    assert outside.ask(host.address, 8080)[0] == "web"
    assert other.ask(web.address, 80)[0] == "web"
    mended = host.nft("list table ip filter")
    host.do(host.networks.mend())
    assert host.nft("list table ip filter") == mended, "once is enough"


def test_what_is_not_published_stays_closed_behind_such_a_firewall(lab, host):
    outside = lab.host("outside")
    web = host.container("web")
    web.serve(80)
    host.nft("table ip filter { chain FORWARD { type filter hook forward priority filter; policy drop; }; }")
    host.do(host.networks.mend())
    outside.route("172.17.0.0/16", host.address)
    with pytest.raises(OSError, match=r"unreachable|No route"):
        outside.ask(web.address, 80)


def test_links_vanish_with_the_last_holder(host):
    def links() -> set[str]:
        with host.kernel() as kernel:
            return set(kernel.links())

    before = {name for name in links() if not name.startswith("shv")}
    one = host.container("one", started=False)
    host.do(host.networks.disconnect(one.id))
    two = host.container("two")
    host.do(host.networks.disconnect(two.id))
    host.close()
    one.shut()
    two.shut()
    deadline = time.monotonic() + 60
    while links() != before:
        assert time.monotonic() < deadline, links()
        time.sleep(0.02)
    host.open()


def test_cancelled_connect_leaves_nothing(host):
    async def cancelled() -> None:
        task = asyncio.ensure_future(host.networks.connect("ab" * 32, ports=(Port(target=80, published=8080),)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    host.do(cancelled())
    web = host.container("web", ports=(Port(target=80, published=8080),))
    assert web.connection.ports[0].published == 8080
