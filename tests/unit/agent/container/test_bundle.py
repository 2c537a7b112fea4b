"""The OCI config that a container comes to: docker's defaults and what options change of them."""

import msgspec
import pytest

from agent.container.bundle import SECCOMP, Device, Facts, bundle
from agent.container.user import User
from agent.runtime.capability import NAMES
from agent.runtime.spec import config as runtime_spec
from shoal.model.base import Resources
from shoal.model.container import Container, ContainerSpec, Mount, MountType, Ulimit
from shoal.model.network import NetworkAttachment

FACTS = Facts(
    cgroup="abc",
    hostname="abc",
    user=User(0, 0, (0, 10), "/root"),
    available=frozenset(NAMES),
    netns_path="/proc/1/fd/3",
    files=(("/etc/hosts", "/c/hosts"), ("/etc/resolv.conf", "/c/resolv.conf")),
)


def config(spec=None, *, facts=None, **fields):
    container = Container(
        **{
            "spec": spec or ContainerSpec(),
            "networks": (NetworkAttachment("bridge"),),
            "argv": ("/bin/true",),
            "workdir": "/",
            **fields,
        }
    )
    facts = msgspec.structs.replace(FACTS, **(facts or {}))
    made = bundle(container, facts)
    runtime_spec.parse(made)  # whatever it is, the runtime takes it
    return made


def mount_at(made, target):
    found = [each for each in made["mounts"] if each["destination"] == target]
    assert len(found) <= 1
    return found[0] if found else None


def test_defaults_are_dockers():
    made = config()
    assert made["process"]["env"] == [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOSTNAME=abc",
        "HOME=/root",
    ]
    assert made["process"]["user"] == {"uid": 0, "gid": 0, "additionalGids": [0, 10]}
    assert len(made["process"]["capabilities"]["effective"]) == 14
    assert made["process"]["noNewPrivileges"] is False
    assert made["annotations"][SECCOMP] == "default"
    assert "/proc/kcore" in made["linux"]["maskedPaths"]
    assert "/proc/sys" in made["linux"]["readonlyPaths"]
    assert mount_at(made, "/dev/shm")["options"][-1] == "size=67108864"
    assert "ro" in mount_at(made, "/sys")["options"]
    assert made["linux"]["sysctl"]["net.ipv4.ip_unprivileged_port_start"] == "0"
    assert {each["type"] for each in made["linux"]["namespaces"]} == {
        "mount",
        "pid",
        "uts",
        "ipc",
        "cgroup",
        "network",
    }


def test_environment_goes_from_defaults_to_image_to_user_and_later_wins():
    made = config(ContainerSpec(tty=True), env=("PATH=/mine", "A=1", "HOME=/x"))
    assert made["process"]["env"] == ["PATH=/mine", "HOSTNAME=abc", "TERM=xterm", "HOME=/x", "A=1"]


def test_who_is_not_root_has_no_capability_in_hand():
    made = config(facts={"user": User(1000, 1000, (1000,), "/")})
    assert made["process"]["capabilities"]["effective"] == []
    assert made["process"]["capabilities"]["permitted"] == []
    assert len(made["process"]["capabilities"]["bounding"]) == 14


def test_limits():
    made = config(limits=Resources(nano_cpus=500_000_000, memory_bytes=64 << 20, pids=10))
    resources = made["linux"]["resources"]
    assert resources["cpu"] == {"period": 100_000, "quota": 50_000}
    assert resources["memory"] == {"limit": 64 << 20, "swap": 128 << 20}
    assert resources["pids"] == {"limit": 10}


def test_no_limits_no_entries():
    assert set(config()["linux"]["resources"]) == {"devices"}


def test_privileged_has_everything_the_host_has_and_no_guards():
    disk = Device("/dev/sda", "b", 8, 0, 0o660, gid=6)
    made = config(ContainerSpec(privileged=True), facts={"devices": (disk,)})
    assert made["linux"]["maskedPaths"] == made["linux"]["readonlyPaths"] == []
    assert SECCOMP not in made["annotations"]
    assert "ro" not in mount_at(made, "/sys")["options"]
    assert made["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]
    assert made["linux"]["devices"][0]["path"] == "/dev/sda"
    assert len(made["process"]["capabilities"]["bounding"]) == len(NAMES)


def test_a_read_only_root_makes_the_small_files_read_only_too():
    made = config(ContainerSpec(read_only=True))
    assert made["root"]["readonly"] is True
    assert "ro" in mount_at(made, "/etc/hosts")["options"]
    assert "ro" not in mount_at(made, "/dev/shm")["options"]


def test_mounts_go_from_the_root_down():
    mounts = (
        Mount(type=MountType.VOLUME, source="v", target="/a/b/c"),
        Mount(type=MountType.BIND, source="/h", target="/a", read_only=True, propagation="rslave"),
        Mount(type=MountType.TMPFS, target="/t/t", tmpfs_size_bytes=4096, tmpfs_mode=0o700),
    )
    made = config(mounts=mounts, facts={"sources": ("/vol", "/h", "")})
    order = [each["destination"] for each in made["mounts"]]
    assert order.index("/a") < order.index("/t/t") < order.index("/a/b/c")
    assert mount_at(made, "/a")["options"] == ["rbind", "rslave", "rro"]
    assert mount_at(made, "/a/b/c")["source"] == "/vol"
    assert mount_at(made, "/t/t")["options"] == [
        "nosuid",
        "noexec",
        "nodev",
        "rprivate",
        "size=4096",
        "mode=700",
    ]


def test_a_mount_of_the_users_replaces_a_default_and_a_small_file():
    mounts = (
        Mount(type=MountType.TMPFS, target="/dev/shm"),
        Mount(type=MountType.BIND, source="/my/hosts", target="/etc/hosts"),
    )
    made = config(mounts=mounts, facts={"sources": ("", "/my/hosts")})
    assert mount_at(made, "/dev/shm")["source"] == "tmpfs"
    assert mount_at(made, "/etc/hosts")["source"] == "/my/hosts"


def test_the_hosts_dev_leaves_no_default_below_it():
    made = config(mounts=(Mount(type=MountType.BIND, source="/dev", target="/dev"),), facts={"sources": ("/dev",)})
    assert [each["destination"] for each in made["mounts"] if each["destination"].startswith("/dev")] == ["/dev"]


def test_the_hosts_network_has_no_namespace_and_no_sysctls():
    made = config(facts={"netns_path": ""})
    assert "network" not in {each["type"] for each in made["linux"]["namespaces"]}
    assert made["linux"]["sysctl"] == {}


def test_a_shared_network_keeps_its_owners_sysctls():
    assert config(facts={"shares_netns": True})["linux"]["sysctl"] == {}


def test_init_runs_before_the_command():
    made = config(ContainerSpec(init=True), facts={"init_path": "/usr/bin/tini-static"})
    assert made["process"]["args"] == ["/sbin/docker-init", "--", "/bin/true"]
    assert mount_at(made, "/sbin/docker-init")["source"] == "/usr/bin/tini-static"


def test_a_terminal_has_its_size():
    made = config(ContainerSpec(tty=True), facts={"rows": 24, "columns": 80})
    assert made["process"]["terminal"] is True
    assert made["process"]["consoleSize"] == {"height": 24, "width": 80}


def test_ulimits_and_sysctls_are_passed_on():
    spec = ContainerSpec(ulimits=(Ulimit("nofile", 10, 20),), sysctls={"net.core.somaxconn": "5"})
    made = config(spec)
    assert made["process"]["rlimits"] == [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}]
    assert made["linux"]["sysctl"]["net.core.somaxconn"] == "5"


@pytest.mark.parametrize("size", [0, 1 << 20])
def test_shm(size):
    made = config(ContainerSpec(shm_size_bytes=size))
    assert f"size={size or 64 << 20}" in mount_at(made, "/dev/shm")["options"]
