import dns.message
import dns.rcode
import pytest

from agent.network.dns import message, zone
from agent.network.dns.zone import Zone

APP = Zone(
    network="app",
    names={"web": ["10.0.0.2"], "tasks.web": ["10.0.0.3", "10.0.0.4"]},
    pointers={"10.0.0.2": "web.app"},
)
VAULT = Zone(network="vault", internal=True, names={"db": ["10.1.0.2"]})


def ask(zones, name, kind="A"):
    query = message.parse(dns.message.make_query(name, kind).to_wire())
    answer = zone.answer(zones, query, lambda records: records.reverse())
    if answer is None:
        return None
    parsed = dns.message.from_wire(answer)
    if parsed.rcode():
        return dns.rcode.to_text(parsed.rcode())
    return [str(item) for rrset in parsed.answer for item in rrset]


@pytest.mark.parametrize("name", ["web", "WEB", "web.app", "Web.APP"])
def test_with_or_without_the_networks_name(name):
    assert ask([APP], name) == ["10.0.0.2"]


def test_several_addresses_in_the_order_of_chance():
    assert ask([APP], "tasks.web") == ["10.0.0.4", "10.0.0.3"]


def test_a_known_name_of_another_kind_has_nothing():
    assert ask([APP], "web", "AAAA") == []
    assert ask([APP], "2.0.0.10.in-addr.arpa", "TXT") == []


def test_pointers():
    assert ask([APP], "2.0.0.10.in-addr.arpa", "PTR") == ["web.app."]
    assert ask([APP], "9.0.0.10.in-addr.arpa", "PTR") is None


def test_unknown_names_are_somebody_elses_unless_internal():
    assert ask([APP], "example.com") is None
    assert ask([VAULT], "example.com") == "NXDOMAIN"
    assert ask([VAULT, APP], "example.com") is None
    assert ask([VAULT, APP], "web") == ["10.0.0.2"]


def test_files_come_back_and_rubbish_does_not():
    assert zone.load(zone.dump(APP)) == APP
    for rubbish in (b"", b"[]", b'{"x": 1}', b"\xff"):
        with pytest.raises(ValueError, match=r".*"):
            zone.load(rubbish)
