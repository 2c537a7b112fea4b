import socket

import pytest

from agent.network.port import FIRST_FREE, LAST_FREE, Ports, held
from shoal.errors import Exhausted, InvalidArgument, Unsupported
from shoal.model.network import Port, PortProtocol, PublishMode

TCP, UDP = PortProtocol.TCP, PortProtocol.UDP


def ports(busy=(), chance=0.0):
    return Ports(lambda protocol, address, number: (protocol, number) in busy, lambda: chance)


def port(published, host_address="", protocol=TCP):
    return Port(target=80, published=published, host_address=host_address, protocol=protocol)


def test_a_port_belongs_to_one_container():
    ours = ports()
    ours.take("a", [port(8080)])
    with pytest.raises(Exhausted, match=r"Bind for 0\.0\.0\.0:8080 failed: port is already allocated$"):
        ours.take("b", [port(8080)])
    ours.take("b", [port(8080, protocol=UDP)])
    ours.release("b", [port(8080)])
    with pytest.raises(Exhausted):
        ours.take("b", [port(8080)])
    ours.release("a", [port(8080)])
    ours.take("b", [port(8080)])


def test_all_addresses_and_one_address_are_in_each_others_way():
    ours = ports()
    ours.take("a", [port(8080, "127.0.0.1")])
    ours.take("b", [port(8080, "10.0.0.1")])
    with pytest.raises(Exhausted, match=r"127\.0\.0\.1:8080"):
        ours.take("c", [port(8080, "127.0.0.1")])
    with pytest.raises(Exhausted, match=r"0\.0\.0\.0:8080"):
        ours.take("c", [port(8080, "0.0.0.0")])
    ours.take("a", [port(9090)])
    with pytest.raises(Exhausted):
        ours.take("c", [port(9090, "127.0.0.1")])


def test_all_or_none():
    ours = ports()
    ours.take("a", [port(8081)])
    with pytest.raises(Exhausted):
        ours.take("b", [port(8080), port(8081)])
    ours.take("c", [port(8080)])


def test_the_same_port_twice_is_refused():
    with pytest.raises(Exhausted):
        ports().take("a", [port(8080), port(8080)])


def test_random_ports_start_at_32768_go_on_and_keep_the_order():
    ours = ports(busy={(TCP, FIRST_FREE + 1)})
    taken = ours.take("a", [port(0), port(FIRST_FREE), port(0, protocol=UDP)])
    assert [each.published for each in taken] == [FIRST_FREE + 2, FIRST_FREE, FIRST_FREE + 3]
    assert all(each.mode is PublishMode.HOST for each in taken)
    assert FIRST_FREE <= ports(chance=0.999999).take("a", [port(0)])[0].published <= LAST_FREE


def test_mesh_ports_are_nobodys():
    ours = ports()
    ours.mesh({(TCP, 8080)})
    with pytest.raises(Exhausted):
        ours.take("a", [port(8080)])
    ours.mesh(())
    ours.take("a", [port(8080)])


@pytest.mark.parametrize(
    ("wrong", "error"),
    [(Port(target=0, published=1), InvalidArgument), (Port(target=80, published=70000), InvalidArgument)],
)
def test_numbers_that_cannot_be(wrong, error):
    with pytest.raises(error, match="not between 1 and 65535"):
        ports().take("a", [wrong])


def test_ipv6_address_is_refused_by_name():
    with pytest.raises(Unsupported, match="cannot publish port 80 on fd00::1"):
        ports().take("a", [port(80, "fd00::1")])


@pytest.mark.parametrize(("protocol", "kind"), [(TCP, socket.SOCK_STREAM), (UDP, socket.SOCK_DGRAM)])
def test_a_socket_of_the_host_is_seen(protocol, kind):
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind(("127.0.0.1", 0))
        if protocol is TCP:
            other.listen()
        number = other.getsockname()[1]
        assert held(protocol, "", number)
        assert held(protocol, "127.0.0.1", number)
        assert not held(protocol, "", number, own=["127.0.0.1"]), "our own resolver's does not count"
    assert not held(protocol, "", number)


def test_of_a_span_the_first_free_port_is_given():
    ours = ports(busy={(TCP, 8080)})
    wish = Port(target=80, published=8080, published_last=8082)
    assert [ours.take(name, [wish])[0].published for name in "ab"] == [8081, 8082]
    with pytest.raises(Exhausted, match=r"Bind for 0\.0\.0\.0:8082 failed"):
        ours.take("c", [wish])
