from pathlib import Path

import pytest

from agent.etcd import EtcdProcess, MemberSettings
from shoal.clock import SystemClock
from shoal.errors import Unavailable
from shoal.settings import Paths

FOUNDER = MemberSettings("n1", "10.0.0.1", "c1")


def value(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1]


def test_the_first_member_founds_a_cluster_of_its_own() -> None:
    words = FOUNDER.argv(Path("/var/lib/shoal/etcd"))
    assert value(words, "--initial-cluster") == "n1=https://10.0.0.1:2380"
    assert value(words, "--initial-cluster-state") == "new"
    assert value(words, "--data-dir") == "/var/lib/shoal/etcd/data"
    assert "--force-new-cluster" not in words


def test_a_later_one_joins_by_the_names_of_all() -> None:
    peers = (("n1", "https://10.0.0.1:2380"), ("n2", "https://10.0.0.2:2380"))
    words = MemberSettings("n2", "10.0.0.2", "c1", peers, joins=True).argv(Path("/e"))
    assert value(words, "--initial-cluster") == "n1=https://10.0.0.1:2380,n2=https://10.0.0.2:2380"
    assert value(words, "--initial-cluster-state") == "existing"
    assert value(words, "--advertise-client-urls") == "https://10.0.0.2:2379"


def test_only_managers_may_connect() -> None:
    words = FOUNDER.argv(Path("/e"))
    assert {"--client-cert-auth", "--peer-client-cert-auth"} <= set(words)
    assert value(words, "--client-cert-allowed-hostname") == "manager.shoal"
    assert value(words, "--peer-cert-allowed-hostname") == "manager.shoal"


def test_an_ipv6_address_stands_in_brackets() -> None:
    settings = MemberSettings("n1", "fd00::1", "c1")
    assert (settings.endpoint, settings.peer_url) == ("[fd00::1]:2379", "https://[fd00::1]:2380")
    assert value(settings.argv(Path("/e")), "--listen-peer-urls") == "https://[::]:2380"


def test_a_host_without_etcd_is_told_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match=r"there is no etcd on this host; install it \(apt-get install etcd-server"):
        EtcdProcess(FOUNDER, Paths(tmp_path, tmp_path), clock=SystemClock())
