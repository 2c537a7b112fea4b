"""Options of isolation as they are typed."""

import pytest

from cli.parse.isolation import device, device_weight, exposed, gpus, security, swap, throttles
from shoal.errors import InvalidArgument, Unsupported
from shoal.v1.types_pb2 import ContainerSpec, DeviceMapping, DeviceWeight, Throttle


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("/dev/fuse", ("/dev/fuse", "", "")),
        ("/dev/fuse:r", ("/dev/fuse", "", "r")),
        ("/dev/a:/dev/b", ("/dev/a", "/dev/b", "")),
        ("/dev/a:/dev/b:rw", ("/dev/a", "/dev/b", "rw")),
        ("nvidia.com/gpu=1:0", ("nvidia.com/gpu=1:0", "", "")),
    ],
)
def test_a_device(text, parts):
    source, target, permissions = parts
    assert device(text) == DeviceMapping(source=source, target=target, permissions=permissions)


@pytest.mark.parametrize("text", ["", "/dev/a:/dev/b:/dev/c", ":/dev/x"])
def test_no_device(text):
    with pytest.raises(InvalidArgument):
        device(text)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("all", "all"),
        ("2", "0 1"),
        ("count=-1", "all"),
        ("driver=nvidia", "0"),
        ('"device=0,GPU-1a2b"', "0 GPU-1a2b"),
        ("device=1,driver=nvidia,capabilities=gpu", "1"),
    ],
)
def test_gpus_are_devices_by_name(text, names):
    assert [each.source for each in gpus(text)] == [f"nvidia.com/gpu={name}" for name in names.split()]


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", InvalidArgument),
        ("0", InvalidArgument),
        ("5000000000", InvalidArgument),
        ("some", InvalidArgument),
        ("colour=red", InvalidArgument),
        ("all,capabilities=utility", Unsupported),
        ("all,driver=other", Unsupported),
    ],
)
def test_no_gpus(text, error):
    with pytest.raises(error):
        gpus(text)


def test_exposed_ports():
    assert exposed("80") == ["80/tcp"]
    assert exposed("8000-8002/UDP") == ["8000/udp", "8001/udp", "8002/udp"]
    for text in ("0", "9-8", "x", "70000"):
        with pytest.raises(InvalidArgument):
            exposed(text)


def test_swap():
    assert (swap("-1"), swap("1g")) == (-1, 1 << 30)


def test_rates_of_devices():
    assert throttles({"read_bps": ["/dev/sda:1mb"], "write_iops": ["/dev/sdb:10"]}) == [
        Throttle(kind="read_bps", path="/dev/sda", rate=1 << 20),
        Throttle(kind="write_iops", path="/dev/sdb", rate=10),
    ]
    for text in ("sda:1", "/dev/sda", "/dev/sda:0"):
        with pytest.raises(InvalidArgument):
            throttles({"read_bps": [text]})


def test_weights_of_devices():
    assert device_weight("/dev/sda:300") == DeviceWeight(path="/dev/sda", weight=300)
    assert device_weight("/dev/sda:0") == DeviceWeight(path="/dev/sda")
    for text, words in {
        "sda": "bad format: sda",
        ":300": "bad format: :300",
        "sda:300": "bad format for device path: sda:300",
        "/dev/sda:": "invalid weight for device: /dev/sda:",
        "/dev/sda:9": "invalid weight for device: /dev/sda:9",
        "/dev/sda:1001": "invalid weight for device: /dev/sda:1001",
        "/dev/sda:x:300": "invalid weight for device: /dev/sda:x:300",
    }.items():
        with pytest.raises(InvalidArgument, match=f"^{words}(;|$)"):
            device_weight(text)


def test_security_options(tmp_path):
    spec = ContainerSpec()
    (tmp_path / "p").write_text('{ "defaultAction": "SCMP_ACT_ALLOW" }')
    security(spec, ["no-new-privileges", f"seccomp={tmp_path}/p", "apparmor=unconfined", "label=disable"])
    assert spec == ContainerSpec(no_new_privileges=True, seccomp='{"defaultAction":"SCMP_ACT_ALLOW"}')
    security(spec, ["no-new-privileges:false", "seccomp=unconfined", "systempaths=unconfined"])
    assert spec == ContainerSpec(seccomp="unconfined", unmasked=True)


def test_each_security_option_can_be_taken_back():
    """An update of a service has no other way to."""
    spec = ContainerSpec(no_new_privileges=True, seccomp="unconfined", unmasked=True)
    security(spec, ["no-new-privileges=false", "seccomp=builtin", "systempaths=confined"])
    assert spec == ContainerSpec()


@pytest.mark.parametrize(
    ("option", "error", "words"),
    [
        ("apparmor=docker-default", Unsupported, "security option apparmor=docker-default is not supported yet"),
        ("label=type:x", Unsupported, "not supported yet"),
        ("odd", InvalidArgument, "invalid --security-opt"),
        ("seccomp=/nothing", InvalidArgument, "opening seccomp profile"),
    ],
)
def test_security_options_that_are_none(option, error, words):
    with pytest.raises(error, match=words):
        security(ContainerSpec(), [option])
