"""What a link tells: a line for /etc/hosts, and docker's variables."""

from agent.container.link import Link, environment, exposed, hosts_line
from shoal.model.base import Meta
from shoal.model.container import Container, ContainerSpec
from shoal.model.network import Port, PortProtocol

OWNER = Container(
    meta=Meta(id="abcdef123456" + "0" * 52),
    name="mysql",
    env=("PATH=/bin", "HOME=/", "MYSQL_USER=me", "EMPTY="),
    ports=(Port(target=53, protocol=PortProtocol.UDP),),
    spec=ContainerSpec(exposed_ports=("9000/tcp",)),
)


def test_a_line_names_it_in_every_way():
    assert hosts_line(Link("db", OWNER, "10.0.0.2")) == "10.0.0.2\tdb abcdef123456 mysql"
    assert hosts_line(Link("mysql", OWNER, "10.0.0.2")) == "10.0.0.2\tmysql abcdef123456"


def test_all_ports_that_can_be_reached():
    assert exposed(OWNER, ("3306/tcp", "9000/tcp")) == ("3306/tcp", "9000/tcp", "53/udp")


def test_variables_are_dockers():
    linked = Link("my-db", OWNER, "10.0.0.2", ("3306/tcp", "53/udp"))
    assert environment("web", [linked]) == [
        "MY_DB_NAME=/web/my-db",
        "MY_DB_PORT=udp://10.0.0.2:53",
        "MY_DB_PORT_53_UDP=udp://10.0.0.2:53",
        "MY_DB_PORT_53_UDP_ADDR=10.0.0.2",
        "MY_DB_PORT_53_UDP_PORT=53",
        "MY_DB_PORT_53_UDP_PROTO=udp",
        "MY_DB_PORT_3306_TCP=tcp://10.0.0.2:3306",
        "MY_DB_PORT_3306_TCP_ADDR=10.0.0.2",
        "MY_DB_PORT_3306_TCP_PORT=3306",
        "MY_DB_PORT_3306_TCP_PROTO=tcp",
        "MY_DB_ENV_MYSQL_USER=me",
        "MY_DB_ENV_EMPTY=",
    ]
