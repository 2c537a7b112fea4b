"""User namespaces of containers (`--userns=auto`): each has ids of its own on the host, and nothing else differs."""

import contextlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from agent.container.exec import ExecRequest
from shoal.errors import InvalidArgument
from shoal.model.container import Mount, MountType
from tests.kernel.container.conftest import drained

pytestmark = pytest.mark.kernel

AUTO = {"userns_mode": "auto"}


def status(pid, field):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(line.split()[1:] for line in lines if line.startswith(f"{field}:"))


async def inside(engine, ref, *argv, **fields):
    code, out, err = await drained(await engine.containers.visits.exec(ref, ExecRequest(argv=argv, **fields)))
    return code, (out + err).decode()


async def test_each_container_has_ids_of_its_own(engine):
    containers = [await engine.run("sleep", "100", name=name, **AUTO) for name in ("one", "two")]
    firsts = [each.first_id for each in containers]
    assert len(set(firsts)) == 2
    for each in containers:
        assert status(each.status.pid, "Uid") == [str(each.first_id)] * 4
        assert status(each.status.pid, "Gid") == [str(each.first_id)] * 4
    assert await inside(engine, "one", "cat", "/proc/self/uid_map") == (0, f"{0:>10} {firsts[0]:>10} {65536:>10}\n")
    await engine.containers.remove("one", force=True)
    assert (await engine.run("true", name="three", **AUTO)).first_id == firsts[0]  # given back


async def test_root_inside_owns_its_files_and_nothing_of_the_hosts(engine, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("root's")
    secret.chmod(0o600)
    tmp_path.chmod(0o755)
    script = (
        "id -u; stat -c '%u %g' / /bin/busybox /srv/data/hello /dev /dev/null /dev/pts/ptmx /dev/shm /etc/hosts;"
        " touch /new /dev/shm/x && chown 5:6 /new && stat -c '%u %g' /new;"
        " echo 127.0.0.1 x >> /etc/hosts && echo hosts; cat /host/secret; hostname other"
    )
    mount = Mount(type=MountType.BIND, source=str(tmp_path), target="/host")
    container = await engine.run("sleep", "100", name="web", mounts=(mount,), **AUTO)
    code, text = await inside(engine, "web", "sh", "-c", script)
    zero = ["0 0"]
    assert text.splitlines()[:11] == ["0", *zero * 2, "1000 0", *zero * 5, "5 6", "hosts"]
    assert "can't open '/host/secret': Permission denied" in text
    assert "sethostname: Operation not permitted" in text
    assert code != 0
    # On the disk everything belongs to whom it would without a namespace.
    upper = engine.paths.containers / container.meta.id / "upper"
    assert ((upper / "new").stat().st_uid, (upper / "new").stat().st_gid) == (5, 6)


async def test_users_capabilities_terminals_and_streams(engine):
    await engine.run("sleep", "100", name="web", user="web", **AUTO)
    assert (await inside(engine, "web", "id"))[1] == "uid=1000(web) gid=1001(web) groups=10(wheel),1001(web)\n"
    assert await inside(engine, "web", "sh", "-c", "echo x > /dev/stdout") == (0, "x\n")
    assert (await inside(engine, "web", "sh", "-c", "tty; stat -c %u $(tty)", tty=True))[1].split() == [
        "/dev/pts/0",
        "1000",
    ]
    assert (await inside(engine, "web", "grep", "CapEff", "/proc/self/status", user="root"))[1].split()[
        1
    ] == "00000000a80425fb"
    code, out, _ = await engine.output(
        "sh", "-c", "tty; stat -c %u $(tty); echo x > /dev/stdout", tty=True, user="web", **AUTO
    )
    assert (code, out.split()) == (0, [b"/dev/pts/0", b"1000", b"x"])
    for user in ("root", "web"):
        assert await engine.output("sh", "-c", "echo x > /dev/stdout", user=user, **AUTO) == (0, b"x\n", b"")


async def test_the_network_is_the_containers_own(engine):
    script = "ip addr add 10.1.2.3/32 dev lo && ip addr show lo | grep -c 10.1.2.3; cat /proc/sys/net/ipv4/ip_forward"
    sysctls = {"net.ipv4.ip_forward": "1", "kernel.shmmax": "12345678"}
    code, out, err = await engine.output("sh", "-c", script, cap_add=("NET_ADMIN",), sysctls=sysctls, **AUTO)
    assert (code, out) == (0, b"1\n1\n"), err
    await engine.output("true", networks=(), **AUTO)


async def test_a_volume_is_shared_by_containers_with_different_ids(engine):
    mount = (Mount(source="data", target="/srv/data"),)
    script = "stat -c %u /srv/data/hello; touch /srv/data/$0; stat -c %u /srv/data/*"
    assert (await engine.output("sh", "-c", script, "a", mounts=mount, **AUTO))[1].split() == [b"1000", b"0", b"1000"]
    assert (await engine.output("sh", "-c", script, "b", mounts=mount, **AUTO))[1].split()[0] == b"1000"
    assert (await engine.output("sh", "-c", script, "c", mounts=mount))[1].split()[1:] == [b"0"] * 3 + [b"1000"]


@pytest.mark.parametrize("running", [True, False])
async def test_files_come_out_and_go_in_with_the_containers_owners(engine, shell, tmp_path, running):
    await engine.run("sh", "-c", "touch /mine; chown 7:8 /mine; sleep 100", name="web", **AUTO)
    await inside(engine, "web", "sh", "-c", "until [ $(stat -c %u /mine) = 7 ]; do :; done")
    if not running:
        await engine.containers.stop("web", timeout_s=0)
    (tmp_path / "in").write_text("x")
    assert (await shell("cp", str(tmp_path / "in"), "web:/in")).code == 0
    for what, line in (("/mine", b"7/8"), ("/in", b"0/0")):
        listing = await shell("cp", f"web:{what}", "-")
        assert listing.code == 0
        assert f"{int(listing.out[108:115], 8)}/{int(listing.out[116:123], 8)}".encode() == line
    assert "A /mine" in (await shell("diff", "web")).text
    assert (await shell("commit", "web", "made")).code == 0
    assert (await engine.output("stat", "-c", "%u %g", "/mine", "/in", image="made"))[1].split(b"\n")[:2] == [
        b"7 8",
        b"0 0",
    ]
    exported = await shell("export", "web")
    assert exported.code == 0
    owners = {each.name: (each.uid, each.gid) for each in members(exported.out)}
    assert owners["mine"] == (7, 8)
    assert owners["in"] == owners["bin/busybox"] == (0, 0)


def members(data):
    return tarfile.open(fileobj=io.BytesIO(data)).getmembers()


async def test_it_survives_the_agent_and_starts_again(engine):
    first = await engine.run("sh", "-c", "echo $$ >> /runs; sleep 100", name="web", **AUTO)
    await engine.restart()
    assert await inside(engine, "web", "sh", "-c", "until grep -s 1 /runs; do :; done") == (0, "1\n")
    await engine.containers.restart("web", timeout_s=0)
    again = engine.containers.get("web")
    assert again.first_id == first.first_id
    assert status(again.status.pid, "Uid")[0] == str(first.first_id)
    script = "until [ $(grep -c 1 /runs) = 2 ]; do :; done; cat /runs"
    assert await inside(engine, "web", "sh", "-c", script) == (0, "1\n1\n")
    await engine.output("true", auto_remove=True, **AUTO)
    assert not [each for each in held() if each.startswith("user:")]


def held():
    """What the agent's descriptors lead to."""
    for each in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            yield os.readlink(f"/proc/self/fd/{each}")


async def test_what_does_not_go_with_it_is_refused(engine, shell):
    with pytest.raises(InvalidArgument, match="privileged mode is incompatible"):
        await engine.run("true", privileged=True, **AUTO)
    with pytest.raises(InvalidArgument, match="invalid USER mode"):
        await engine.run("true", userns_mode="private")
    shown = await shell("create", "--userns", "auto", "busybox")
    assert (await shell("inspect", "-f", "{{.HostConfig.UsernsMode}}", shown.text.strip())).text == "auto\n"
    assert (await shell("run", "--rm", "--userns=host", "busybox", "cat", "/proc/self/uid_map")).text.split() == [
        "0",
        "0",
        "4294967295",
    ]
