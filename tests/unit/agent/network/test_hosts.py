from agent.network import hosts
from agent.network.hosts import Resolvers

TEXT = """\
# by hand
nameserver 127.0.0.53
nameserver 192.0.2.1 ; the office
nameserver fe80::1%eth0
nameserver
search a.test
search b.test c.test
options ndots:2 timeout:1
"""


def test_parse_takes_the_last_search_and_all_servers():
    assert hosts.parse(TEXT) == Resolvers(
        ("127.0.0.53", "192.0.2.1", "fe80::1%eth0"), ("b.test", "c.test"), ("ndots:2", "timeout:1")
    )


def test_loopback_servers_are_replaced_by_what_is_behind_them():
    own, uplink = Resolvers(("127.0.0.53",)), Resolvers(("198.51.100.1",))
    assert hosts.reachable(hosts.parse(TEXT), uplink) == ("192.0.2.1", "fe80::1%eth0")
    assert hosts.reachable(own, uplink) == ("198.51.100.1",)
    assert hosts.reachable(own, own) == hosts.PUBLIC
    assert hosts.reachable(Resolvers(("not-an-address",)), own) == hosts.PUBLIC


def test_a_host_without_resolv_conf(tmp_path):
    assert hosts.Host(tmp_path / "none").resolvers() == (Resolvers(), hosts.PUBLIC)


def test_a_host_is_asked_again_when_its_file_is_another_one(tmp_path):
    path = tmp_path / "resolv.conf"
    host = hosts.Host(path)
    assert host.resolvers()[1] == hosts.PUBLIC
    path.write_text("nameserver 192.0.2.1\n")
    assert host.resolvers()[1] == host.resolvers()[1] == ("192.0.2.1",)
    (tmp_path / "next").write_text("nameserver 192.0.2.2\n")
    (tmp_path / "next").rename(path)
    assert host.resolvers()[1] == ("192.0.2.2",)
    path.unlink()
    assert host.resolvers()[1] == hosts.PUBLIC


def test_files_for_a_container():
    assert hosts.resolv_conf(["10.0.1.65"], ["b.test"], ["ndots:0"]) == (
        "nameserver 10.0.1.65\nsearch b.test\noptions ndots:0\n"
    )
    lines = hosts.hosts_file(["172.17.0.2\tweb"]).splitlines()
    assert lines[0] == "127.0.0.1\tlocalhost"
    assert lines[-1] == "172.17.0.2\tweb"
