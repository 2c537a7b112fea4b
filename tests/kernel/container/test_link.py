"""Links between containers, as the courses teach them."""

import pytest

from shoal.errors import Conflict, InvalidArgument, NotFound
from shoal.model.network import NetworkAttachment, NetworkSpec

pytestmark = pytest.mark.kernel


async def test_a_link_gives_a_name_and_variables_and_follows_a_restart(engine, shell):
    await engine.add("server", "EXPOSE 3306", "ENV SECRET=x")
    first = await engine.run("sleep", "100", name="mysql", image="server")
    address = first.status.addresses[0].address
    ran = await shell("run", "-d", "--name", "web", "--link", "mysql:db", "busybox", "sleep", "100")
    assert ran.code == 0
    hosts = (await shell("exec", "web", "cat", "/etc/hosts")).text
    assert f"{address}\tdb {first.meta.id[:12]} mysql\n" in hosts
    variables = (await shell("exec", "web", "env")).text.splitlines()
    assert {f"DB_PORT_3306_TCP_ADDR={address}", "DB_NAME=/web/db", "DB_ENV_SECRET=x"} <= set(variables)
    await engine.containers.stop("mysql", timeout_s=0)
    taken = await engine.run("sleep", "100", name="other")
    again = await engine.containers.start("mysql")
    moved = again.status.addresses[0].address
    assert taken.status.addresses[0].address != moved
    assert f"{moved}\tdb {first.meta.id[:12]} mysql\n" in (await shell("exec", "web", "cat", "/etc/hosts")).text
    await engine.containers.rename("mysql", "renamed")
    assert (await engine.containers.restart("web", timeout_s=0)).status.pid


async def test_what_cannot_be_linked(engine):
    with pytest.raises(NotFound, match="could not get container for nobody"):
        await engine.run("true", links=("nobody:db",))
    await engine.run("true", name="mysql", start=False)
    with pytest.raises(Conflict, match="Cannot link to a non running container: /mysql AS /web/db"):
        await engine.run("true", name="web", links=("mysql:db",))


async def test_a_link_of_one_network_is_a_name_for_one_container(engine, shell):
    for name in ("one", "two"):
        await engine.networks.create(NetworkSpec(name=name))
    on_two = (NetworkAttachment(network="two"),)
    await engine.run("sleep", "100", name="mysql", networks=on_two)
    await engine.run("sleep", "100", name="web", networks=(NetworkAttachment(network="one"),))
    assert (await shell("network", "connect", "--link", "mysql:db", "--link", "later", "two", "web")).code == 0

    async def found(name):
        return (await shell("exec", "web", "busybox", "nslookup", "-type=a", name)).text.splitlines()

    def line(name):
        addresses = {each.network_name: each.address for each in engine.containers.get(name).status.addresses}
        return f"Address: {addresses['two']}"

    assert line("mysql") in await found("db")
    assert line("mysql") in await found("DB.two")
    await engine.run("sleep", "100", name="later", networks=on_two)
    assert line("later") in await found("later")
    await engine.restart()
    await engine.containers.restart("web", timeout_s=0)
    assert line("mysql") in await found("db")
    seen = await shell("inspect", "-f", '{{json (index .NetworkSettings.Networks "two").Links}}', "web")
    assert seen.text == '["mysql:db","later"]\n'


async def test_what_is_no_link_of_a_network(engine, shell):
    await engine.run("sleep", "100", name="still", start=False)
    await engine.networks.create(NetworkSpec(name="two"))
    with pytest.raises(InvalidArgument, match="bad format for links: a:b:c"):
        await engine.containers.connect("still", NetworkAttachment(network="two", links=("a:b:c",)))
    await engine.containers.connect("still", NetworkAttachment(network="two"))
    await engine.containers.disconnect("still", "bridge")
    with pytest.raises(InvalidArgument, match="links are only supported for user-defined networks"):
        await engine.containers.connect("still", NetworkAttachment(network="bridge", links=("a:b",)))
    refused = await shell("network", "connect", "--link", "a:b:c", "two", "still")
    assert "bad format for links: a:b:c" in refused.err
