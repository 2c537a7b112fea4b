"""/etc/hosts, /etc/hostname and /etc/resolv.conf of a container."""

import pytest

from agent.container.hostfiles import write_host_files
from agent.network.connection import Connection
from shoal.model.container import Container, ContainerSpec
from shoal.model.network import Address, NetworkAttachment

CONNECTION = Connection(
    addresses=(Address(address="172.17.0.2", gateway="172.17.0.1"),),
    nameservers=("10.0.0.53",),
    search=("lan",),
    hosts=("172.17.0.2\tweb",),
)


@pytest.fixture
def written(tmp_path):
    def write(network="bridge", connection=CONNECTION, **spec):
        container = Container(spec=ContainerSpec(**spec), networks=(NetworkAttachment(network),))
        write_host_files(tmp_path, container, "web", connection)
        return {each.name: each.read_text() for each in tmp_path.iterdir()}

    return write


def test_dockers_files(written):
    files = written()
    assert files["hostname"] == "web\n"
    assert files["resolv.conf"] == "nameserver 10.0.0.53\nsearch lan\n"
    assert files["hosts"].startswith("127.0.0.1\tlocalhost\n")
    assert files["hosts"].endswith("172.17.0.2\tweb\n")


def test_names_and_servers_of_the_users(written):
    files = written(hosts=("db:10.1.1.1", "six:fe80::1", "up:host-gateway"), dns=("1.1.1.1",))
    for line in ("10.1.1.1\tdb\n", "fe80::1\tsix\n", "172.17.0.1\tup\n"):
        assert line in files["hosts"]
    assert "nameserver 1.1.1.1\n" in files["resolv.conf"]
    assert "10.0.0.53" not in files["resolv.conf"]


def test_on_the_hosts_network_they_are_the_hosts(written):
    with open("/etc/hosts") as file:
        own = file.read()
    files = written(network="host", connection=Connection(), hosts=("db:10.1.1.1",))
    assert files["hosts"].startswith(own.rstrip("\n"))
    assert files["hosts"].endswith("10.1.1.1\tdb\n")
