from ipaddress import IPv4Address, IPv4Network

import msgspec

from agent.network.dns.names import zone_of
from agent.network.record import Attached, Record
from agent.network.segment import Segment
from shoal.model.network import Backend, Endpoint

WEB = Segment(
    network_id="web-id",
    name="web",
    device="shb1",
    subnet=IPv4Network("10.0.1.0/24"),
    block=IPv4Network("10.0.1.64/26"),
    gateway=IPv4Address("10.0.1.65"),
    tunnel="shx1",
)
GATEWAYS = {"web-id": "10.0.1.65", "app-id": "172.18.0.1"}
BACKENDS = (
    Backend(task_id="t1", node_id="n1", slot=1, address="10.0.1.66"),
    Backend(task_id="t2", node_id="n2", slot=0, address="10.0.1.130"),
    Backend(task_id="t3", node_id="n2", slot=3, address=""),
)


def endpoint(address="10.0.1.2", network_id="web-id"):
    return Endpoint(
        service_id="s",
        service_name="Shop",
        network_id=network_id,
        address=address,
        aliases=("store",),
        backends=BACKENDS,
    )


def test_a_service_is_its_vip_and_its_tasks_one_by_one():
    zone = zone_of(WEB, [], [endpoint(), endpoint(network_id="other")], GATEWAYS)
    tasks = ["10.0.1.130", "10.0.1.66"]
    assert zone.names == {
        "shop": ["10.0.1.2"],
        "store": ["10.0.1.2"],
        "tasks.shop": tasks,
        "tasks.store": tasks,
        "shop.1.t1": ["10.0.1.66"],
        "shop.n2.t2": ["10.0.1.130"],
    }
    assert zone.pointers["10.0.1.2"] == "Shop.web"
    assert zone.pointers["10.0.1.66"] == "Shop.1.t1.web"


def test_without_vip_a_service_is_all_its_tasks():
    assert zone_of(WEB, [], [endpoint(address="")], GATEWAYS).names["shop"] == ["10.0.1.130", "10.0.1.66"]


def test_links_are_in_every_zone_where_their_owner_may_ask():
    on_web = Attached("web-id", "web", "10.0.1.70", ("c",), links={"DB": "MySQL"})
    on_app = Attached("app-id", "app", "172.18.0.7", ("c",))
    record = Record("c", attached=(on_app, on_web))
    app = msgspec.structs.replace(WEB, network_id="app-id", name="app", gateway=IPv4Address("172.18.0.1"))
    links = {"10.0.1.65": {"db": "mysql"}}
    assert zone_of(WEB, [record], [], GATEWAYS).links == {"10.0.1.70": links}
    assert zone_of(app, [record], [], GATEWAYS).links == {"172.18.0.7": links}
    assert zone_of(app, [Record("c", attached=(on_app,))], [], GATEWAYS).links == {}


def test_containers_with_one_alias_share_it():
    records = [
        Record(str(number), attached=(Attached("web-id", "web", f"10.0.1.{number}", (f"c{number}", "db")),))
        for number in (70, 71)
    ]
    zone = zone_of(WEB, records, [], GATEWAYS)
    assert zone.names["db"] == ["10.0.1.70", "10.0.1.71"]
    assert zone.pointers == {"10.0.1.70": "c70.web", "10.0.1.71": "c71.web"}
    assert zone.clients == {}


def test_a_container_on_two_networks_may_look_into_both():
    attached = (
        Attached("web-id", "web", "10.0.1.70", ("c",)),
        Attached("app-id", "app", "172.18.0.2", ("c",)),
        Attached("bridge-id", "bridge", "172.17.0.2"),
    )
    assert zone_of(WEB, [Record("1", attached=attached)], [], GATEWAYS).clients == {"10.0.1.70": ["172.18.0.1"]}
