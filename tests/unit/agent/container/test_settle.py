"""What a wish comes to with its image, and which wishes are refused."""

import itertools

import msgspec
import pytest

from agent.container.settle import settled, warnings_of
from shoal.errors import InvalidArgument
from shoal.model.base import Resources
from shoal.model.container import (
    Container,
    ContainerSpec,
    Mount,
    MountType,
    RestartCondition,
    RestartPolicy,
    Ulimit,
)
from shoal.model.image import ImageConfig
from shoal.model.network import NetworkAttachment, Port, PortProtocol, PublishMode

IMAGE = ImageConfig(
    entrypoint=("/entry",),
    cmd=("serve",),
    env=("PATH=/bin", "LANG=C"),
    workdir="/app",
    user="web",
    exposed_ports=("80/tcp", "53/udp"),
    volumes=("/data", "/data/"),
)


def settle(spec=None, *, image=IMAGE, publish_all=False, cpus=2, **wanted):
    counter = itertools.count()
    container = Container(spec=msgspec.structs.replace(spec or ContainerSpec(), image="x"), **wanted)
    return settled(
        container, "sha256:1", image, cpus=cpus, publish_all=publish_all, mint=lambda: f"minted{next(counter)}"
    )


def refused(match, spec=None, **more):
    with pytest.raises(InvalidArgument, match=match):
        settle(spec, **more)


def test_image_gives_command_folder_and_user():
    got = settle()
    assert (got.argv, got.workdir, got.user) == (("/entry", "serve"), "/app", "web")
    assert got.image_id == "sha256:1"


def test_arguments_replace_cmd_and_follow_entrypoint():
    assert settle(ContainerSpec(args=("a", "b"))).argv == ("/entry", "a", "b")


def test_a_new_entrypoint_drops_cmd():
    assert settle(ContainerSpec(entrypoint=("/x",), entrypoint_set=True)).argv == ("/x",)


@pytest.mark.parametrize("entrypoint", [(), ("",)])
def test_an_empty_entrypoint_clears_it(entrypoint):
    spec = ContainerSpec(entrypoint=entrypoint, entrypoint_set=True, args=("ls",))
    assert settle(spec).argv == ("ls",)


def test_no_command_at_all():
    refused("No command specified", image=ImageConfig())


def test_environment_is_the_users_and_then_the_images_where_the_user_says_nothing():
    assert settle(ContainerSpec(env=("NEW=1", "LANG=de", "EMPTY="))).env == (
        "NEW=1",
        "LANG=de",
        "EMPTY=",
        "PATH=/bin",
    )


def test_a_variable_without_value_is_taken_away():
    assert settle(ContainerSpec(env=("LANG",))).env == ("PATH=/bin",)


def test_volumes_of_the_image_get_a_name_once():
    assert settle().mounts == (Mount(type=MountType.VOLUME, source="minted0", target="/data"),)


def test_a_mount_of_the_users_stands_for_the_images_volume():
    mine = Mount(type=MountType.BIND, source="/srv/../srv/x", target="/data/")
    got = settle(ContainerSpec(mounts=(mine,)))
    assert [(each.source, each.target) for each in got.mounts] == [("/srv/x", "/data")]


def test_publish_all_adds_what_is_not_published_yet():
    got = settle(publish_all=True, ports=(Port(target=80, published=8080),))
    assert [(each.target, each.published, each.protocol) for each in got.ports] == [
        (80, 8080, PortProtocol.TCP),
        (53, 0, PortProtocol.UDP),
    ]
    assert {each.mode for each in got.ports} == {PublishMode.HOST}


def test_the_default_network_is_the_bridge():
    assert settle().networks == (NetworkAttachment(network="bridge"),)


def test_ports_on_the_hosts_network_are_warned_of():
    got = settle(networks=(NetworkAttachment(network="host"),), ports=(Port(target=80),))
    assert warnings_of(got) == ("Published ports are discarded when using host network mode",)
    assert warnings_of(settle()) == ()


def mount(**fields):
    return ContainerSpec(mounts=(Mount(**{"type": MountType.BIND, "source": "/a", "target": "/b", **fields}),))


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (ContainerSpec(workdir="rel"), "needs to be an absolute path"),
        (ContainerSpec(env=("=x",)), "invalid environment variable"),
        (ContainerSpec(env=("A=\0",)), "invalid environment variable"),
        (ContainerSpec(args=("a\0",)), "NUL"),
        (ContainerSpec(hostname="a b"), "invalid hostname"),
        (ContainerSpec(hostname="x" * 65), "invalid hostname"),
        (ContainerSpec(cap_add=("NOPE",)), 'invalid CapAdd: unknown capability: "CAP_NOPE"'),
        (ContainerSpec(cap_drop=("NOPE",)), "invalid CapDrop"),
        (ContainerSpec(stop_signal="FOO"), "Invalid signal: FOO"),
        (ContainerSpec(shm_size_bytes=-1), "SHM size"),
        (ContainerSpec(dns=("",)), "invalid IP address"),
        (ContainerSpec(hosts=("nohost",)), "bad format for add-host"),
        (ContainerSpec(hosts=("a:{x}",)), "invalid IP address in add-host"),
        (ContainerSpec(ulimits=(Ulimit("nofile", 10, 5),)), "soft limit must be less"),
        (ContainerSpec(ulimits=(Ulimit("bogus", 1, 2),)), "invalid ulimit type"),
        (ContainerSpec(sysctls={"kernel.panic": "1"}), "not whitelisted"),
        (mount(source="rel"), "must be absolute"),
        (mount(target="rel"), "mount path must be absolute"),
        (mount(target="/"), "destination can't be '/'"),
        (mount(target="/x/.."), "destination can't be '/'"),
        (mount(target="/proc/1"), "/proc may not be covered"),
        (mount(propagation="odd"), "invalid propagation"),
        (mount(type=MountType.VOLUME, source="a/b"), "includes invalid characters"),
        (mount(type=MountType.VOLUME, source="a"), "name is too short"),
        (ContainerSpec(mounts=(mount().mounts[0], mount(target="/b/").mounts[0])), "Duplicate mount point: /b"),
    ],
)
def test_what_can_never_be_right(spec, said):
    refused(said, spec)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"limits": Resources(memory_bytes=1 << 20)}, "Minimum memory limit allowed is 6MB"),
        ({"limits": Resources(nano_cpus=3 * 10**9)}, "range of CPUs is from 0.01 to 2.00"),
        ({"limits": Resources(nano_cpus=1)}, "range of CPUs"),
        ({"auto_remove": True, "restart": RestartPolicy(condition=RestartCondition.ANY)}, "AutoRemove"),
        ({"ports": (Port(target=0),)}, "invalid containerPort: 0"),
        ({"ports": (Port(target=80, published=99999),)}, "invalid hostPort: 99999"),
        ({"ports": (Port(target=80, host_address="x"),)}, "invalid IP address: x"),
        ({"networks": (NetworkAttachment("a"), NetworkAttachment("a"))}, "one network twice"),
        ({"networks": (NetworkAttachment("host"), NetworkAttachment("a"))}, "conflicting options"),
        ({"networks": (NetworkAttachment("host", aliases=("a",)),)}, "only supported for user-defined networks"),
        (
            {"networks": (NetworkAttachment("none"),), "spec": ContainerSpec(links=("db",))},
            "links are only supported for user-defined networks",
        ),
        (
            {"networks": (NetworkAttachment("container:1"),), "ports": (Port(target=80),)},
            "port publishing and the container type network mode",
        ),
    ],
)
def test_what_no_host_can_run(wanted, said):
    refused(said, **wanted)


def test_a_shared_network_takes_no_host_name():
    refused("hostname and the network mode", ContainerSpec(hostname="a"), networks=(NetworkAttachment("container:1"),))


def test_a_sysctl_of_the_network_is_refused_on_the_hosts():
    spec = ContainerSpec(sysctls={"net.ipv4.ip_forward": "1"})
    assert settle(spec)
    refused("not allowed in host network namespace", spec, networks=(NetworkAttachment("host"),))
