from manager.allocator.unsettled import Unsettled
from shoal.model.base import Meta
from shoal.model.network import Network, NetworkAttachment, NetworkScope, NetworkSpec, Port


def overlay(world, id, **spec):
    return world.write(Network(Meta(id), NetworkSpec(name=f"{id}-net", driver="overlay", **spec), NetworkScope.SWARM))


def names(world):
    return [service.spec.name for service in world.view.follower(Unsettled).services()]


def test_a_service_that_has_what_it_asks_for_is_not_asked_again_until_it_or_its_network_changes(world):
    world.service("plain")
    world.service("on-x", networks=(NetworkAttachment("x-net"),))
    world.service("published", ports=(Port(target=80),))
    assert names(world) == ["on-x", "plain", "published"]
    world.settle()
    assert names(world) == []
    overlay(world, "y")
    assert names(world) == []
    overlay(world, "x")
    assert names(world) == ["on-x"]
    world.settle()
    assert [address.network_id for address in world.view.services["on-x"].addresses] == ["x"]
    ingress = next(each for each in world.view.networks.values() if each.spec.ingress)
    world.write(ingress)
    assert names(world) == ["published"]
    world.service("plain", replicas=2)
    world.remove(world.view.services["published"])
    assert names(world) == ["plain"]
    world.settle()
    assert names(world) == []
