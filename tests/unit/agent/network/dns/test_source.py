"""Which zones a container may look into, and what it alone calls others."""

from pathlib import Path

from agent.network.dns.source import Zones
from agent.network.dns.zone import Zone, dump

ONE, TWO, CLIENT = "10.0.1.1", "10.0.2.1", "10.0.1.5"
LINKED = Zone(
    "one",
    names={"db": ["10.0.1.9"], "web": [CLIENT]},
    clients={CLIENT: [TWO]},
    links={CLIENT: {TWO: {"db": "mysql", "gone": "nobody"}}},
)
OTHER = Zone("two", internal=True, names={"mysql": ["10.0.2.9"]})


def write(folder: Path, zone: Zone, gateway: str) -> None:
    (folder / f"{gateway}.json").write_bytes(dump(zone))


def test_its_own_links_come_first(tmp_path: Path) -> None:
    write(tmp_path, LINKED, ONE)
    write(tmp_path, OTHER, TWO)
    zones = Zones(tmp_path)
    assert zones.for_client(ONE, CLIENT) == [Zone("two", internal=True, names={"db": ["10.0.2.9"]}), LINKED, OTHER]
    assert zones.for_client(ONE, "10.0.1.6") == [LINKED]
    assert zones.for_client(TWO, CLIENT) == [OTHER]


def test_links_to_a_network_that_is_gone_lead_nowhere(tmp_path: Path) -> None:
    write(tmp_path, LINKED, ONE)
    assert Zones(tmp_path).for_client(ONE, CLIENT) == [LINKED]
