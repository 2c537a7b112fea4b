from ipaddress import IPv4Address, IPv4Network

import msgspec
import pytest

from agent.network.allotment import Allotments
from agent.network.segment import Segment
from shoal.errors import Conflict, Exhausted
from shoal.model.network import NetworkAttachment, Port

APP = Segment(
    network_id="app-id",
    name="app",
    device="shl1",
    subnet=IPv4Network("172.18.0.0/29"),
    block=IPv4Network("172.18.0.0/29"),
    gateway=IPv4Address("172.18.0.1"),
)
VAULT = msgspec.structs.replace(APP, network_id="vault-id", name="vault", internal=True)
ID = "ab" * 32


def allotments(*segments):
    ours = Allotments(lambda *_: False, lambda: 0.0)
    ours.lay(segments or [APP], ())
    return ours


def take(ours, container_id=ID, segments=(APP,), name="web", aliases=("www",), ports=()):
    wanted = [(segment, NetworkAttachment(network=segment.name, aliases=("x",))) for segment in segments]
    return ours.take(container_id, wanted, name=name, aliases=aliases, ports=ports)


def test_a_container_is_known_by_name_short_id_and_aliases():
    record = take(allotments())
    assert record.attached[0].address == "172.18.0.2"
    assert record.attached[0].names == ("web", "ab" * 6, "www", "x")


def test_what_was_given_back_is_free_once():
    ours = allotments()
    first = take(ours, ports=[Port(target=80, published=8080)])
    ours.give_back(first)
    second = take(ours, ports=[Port(target=80, published=8080)])
    ours.give_back(first)
    with pytest.raises(Exhausted):
        take(ours, "cd" * 32, ports=[Port(target=80, published=8080)])
    assert ours.records[ID] is second


def test_a_busy_port_gives_the_addresses_back():
    ours = allotments()
    ours.lay([APP], [(Port().protocol, 8080)])
    for _ in range(20):
        with pytest.raises(Exhausted, match="8080"):
            take(ours, ports=[Port(target=80, published=8080)])
    assert ours.records == {}


def test_ports_lead_to_the_first_network_with_a_way_outside():
    ours = allotments(VAULT, APP)
    record = take(ours, segments=(VAULT, APP), ports=[Port(target=80, published=8080)])
    assert record.reached == record.attached[1].address
    ours.give_back(record)
    assert take(ours, segments=(VAULT,), ports=[Port(target=80, published=8080)]).ports == ()


def test_loaded_records_hold_their_addresses_and_ports():
    before = take(allotments(), ports=[Port(target=80, published=8080)])
    ours = Allotments(lambda *_: False, lambda: 0.0)
    ours.load([before])
    ours.lay([APP], ())
    assert ours.users("app-id") == ["web"]
    with pytest.raises(Exhausted):
        take(ours, "cd" * 32, ports=[Port(target=80, published=8080)])
    assert take(ours, "cd" * 32).attached[0].address not in ("172.18.0.1", before.attached[0].address)


def test_the_address_that_is_wished_for_is_given_to_one_alone():
    ours = allotments()
    wish = [(APP, NetworkAttachment(network="app", address="172.18.0.5"))]
    record = ours.take(ID, wish, name="web", aliases=(), ports=())
    assert record.attached[0].address == "172.18.0.5"
    with pytest.raises(Conflict, match="Address already in use"):
        ours.take("cd" * 32, wish, name="other", aliases=(), ports=())
    ours.give_back(record)
    assert ours.take("cd" * 32, wish, name="other", aliases=(), ports=()).attached[0].address == "172.18.0.5"


def test_ports_follow_to_the_next_network_that_leads_outside():
    blocks = [IPv4Network("172.19.0.0/29"), IPv4Network("172.20.0.0/29")]
    other = msgspec.structs.replace(APP, network_id="other-id", name="other", subnet=blocks[0], block=blocks[0])
    vault = msgspec.structs.replace(VAULT, subnet=blocks[1], block=blocks[1])
    ours = allotments(APP, vault, other)
    take(ours, ports=(Port(target=80, published=8080),))
    ours.join(ID, "web", vault, NetworkAttachment(network="vault"))
    joined = ours.join(ID, "web", other, NetworkAttachment(network="other", aliases=("y",)))
    assert joined.attached[2].names == ("web", "ab" * 6, "y")
    assert joined.reached == joined.attached[0].address
    with pytest.raises(Conflict, match="already exists in network other"):
        ours.join(ID, "web", other, NetworkAttachment(network="other"))
    left = ours.leave(joined, "app-id", internal={"vault-id"})
    assert left.reached == joined.attached[2].address
    assert ours.leave(left, "other-id", internal={"vault-id"}).reached == ""
    assert ours.users("app-id") == ours.users("other-id") == []
