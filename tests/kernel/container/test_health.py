"""Health checks on real containers: as flags and images ask for them, as `ps`, `inspect` and `events` show them."""

import asyncio
import io
import json
import tarfile

import pytest

from shoal.model.container import ContainerState
from shoal.model.health import HealthCheck, HealthState

pytestmark = pytest.mark.kernel

MS = 10**6


def check(*test, **fields):
    return HealthCheck(test=test, **{"interval_ns": 20 * MS, "timeout_ns": 10_000 * MS, "retries": 2, **fields})


async def until(engine, ref, state):
    async with asyncio.timeout(60):
        while (health := engine.containers.get(ref).status.health).state != state:
            await engine.containers.wait_change(ref, health.state)
    return engine.containers.get(ref).status.health


async def test_a_container_is_starting_until_its_test_succeeds(engine):
    await engine.run("sleep", "100", name="web", health=check("CMD-SHELL", "echo looking; test -e /ready"))
    assert engine.containers.get("web").status.health.state == HealthState.STARTING
    sick = await until(engine, "web", HealthState.UNHEALTHY)
    assert sick.failing_streak >= 2
    assert (sick.results[-1].exit_code, sick.results[-1].output) == (1, "looking\n")
    assert sick.results[-1].ended_at_ns > sick.results[-1].started_at_ns
    await engine.containers.files.write("web", "/", made_file("ready"), keep_owner=False)
    healthy = await until(engine, "web", HealthState.HEALTHY)
    assert healthy.failing_streak == 0
    assert len(healthy.results) <= 5
    assert engine.containers.get("web").status.state == ContainerState.RUNNING


async def made_file(name):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    yield buffer.getvalue()


async def test_the_exec_form_runs_without_a_shell_as_the_containers_user(engine):
    await engine.run("sleep", "100", name="web", user="web", health=check("CMD", "id", "-u"))
    health = await until(engine, "web", HealthState.HEALTHY)
    assert health.results[-1].output == "1000\n"


async def test_what_cannot_be_run_is_unhealthy_and_says_why(engine):
    await engine.run("sleep", "100", name="web", health=check("CMD", "/nothing"))
    health = await until(engine, "web", HealthState.UNHEALTHY)
    assert health.results[-1].exit_code == -1
    assert "no such file" in health.results[-1].output


async def test_what_takes_too_long_is_killed(engine):
    test = check("CMD-SHELL", "exec sleep 98", timeout_ns=50 * MS)
    await engine.run("sleep", "100", name="web", health=test)
    health = await until(engine, "web", HealthState.UNHEALTHY)
    assert (health.results[-1].exit_code, health.results[-1].output) == (-1, "Health check exceeded timeout (0.05s)")
    await engine.containers.pause("web")  # nothing is begun any more
    await engine.containers.resume("web")
    async with asyncio.timeout(60):  # one that was killed may be about to die
        while len(await looking(engine, "web")) > 1:
            await asyncio.sleep(0.01)


async def looking(engine, ref):
    rows = (await engine.containers.survey.processes(ref, ("-eo", "pid,args"))).rows
    return [row for row in rows if row[1] == "sleep 98"]


async def test_output_is_cut(engine):
    await engine.run("sleep", "100", name="web", health=check("CMD-SHELL", "yes | head -c 100000"))
    health = await until(engine, "web", HealthState.HEALTHY)
    assert len(health.results[-1].output) == 4096


async def test_nothing_is_asked_while_it_stands_still_or_after_its_end(engine):
    await engine.run("sleep", "100", name="web", health=check("CMD", "true"))
    await until(engine, "web", HealthState.HEALTHY)
    await engine.containers.pause("web")
    before = engine.containers.get("web").status.health.results[-1]
    await asyncio.sleep(0.2)
    assert engine.containers.get("web").status.health.results[-1] == before
    assert engine.containers.get("web").status.health.state == HealthState.HEALTHY
    await engine.containers.stop("web", timeout_s=0)
    await engine.containers.start("web")
    assert engine.containers.get("web").status.health.state == HealthState.STARTING
    await until(engine, "web", HealthState.HEALTHY)


async def test_an_agent_that_starts_again_goes_on_asking(engine):
    await engine.run("sleep", "100", name="web", health=check("CMD-SHELL", "test ! -e /sick"))
    await until(engine, "web", HealthState.HEALTHY)
    await engine.restart()
    assert engine.containers.get("web").status.health.state == HealthState.HEALTHY
    await engine.containers.files.write("web", "/", made_file("sick"), keep_owner=False)
    await until(engine, "web", HealthState.UNHEALTHY)


async def test_an_images_check_and_flags_over_it(engine, shell):
    await engine.add("checked", "HEALTHCHECK --interval=20ms --retries=1 CMD test -e /srv/data/hello")
    image = (await engine.images.get("checked")).config.health
    assert image == HealthCheck(test=("CMD-SHELL", "test -e /srv/data/hello"), interval_ns=20 * MS, retries=1)
    assert (await shell("run", "-d", "--name", "own", "checked", "sleep", "100")).code == 0
    await until(engine, "own", HealthState.HEALTHY)
    ran = await shell("run", "-d", "--name", "sick", "--health-cmd", "echo no; exit 1", "checked", "sleep", "100")
    assert ran.code == 0
    await until(engine, "sick", HealthState.UNHEALTHY)
    assert (await shell("run", "-d", "--name", "none", "--no-healthcheck", "checked", "sleep", "100")).code == 0
    rows = (await shell("ps", "--format", "{{.Names}} {{.Status}}")).text.splitlines()
    assert [row.split(" ")[0] for row in rows] == ["none", "sick", "own"]
    assert rows[0].endswith(("second", "seconds"))
    assert rows[1].endswith("(unhealthy)")
    assert rows[2].endswith("(healthy)")
    assert (await shell("ps", "--filter", "health=unhealthy", "--format", "{{.Names}}")).text == "sick\n"
    [shown] = json.loads((await shell("inspect", "sick")).text)
    assert shown["State"]["Health"]["Status"] == "unhealthy"
    assert shown["State"]["Health"]["Log"][-1]["Output"] == "no\n"
    assert shown["Config"]["Healthcheck"]["Test"] == ["CMD-SHELL", "echo no; exit 1"]
    assert shown["Config"]["Healthcheck"]["Interval"] == 20 * MS
    told = await shell("events", "--until", "0s", "--filter", "event=health_status", "--format", "{{.Action}}")
    assert sorted(told.text.splitlines()) == ["health_status: healthy", "health_status: unhealthy"]
    both = await shell("run", "--no-healthcheck", "--health-cmd", "true", "checked")
    assert (both.code, both.err.splitlines()[0]) == (
        125,
        "Error: --no-healthcheck conflicts with --health-* options",
    )
