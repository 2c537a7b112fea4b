"""Links between containers, as the courses teach them."""

import pytest

from shoal.errors import Conflict, NotFound

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
