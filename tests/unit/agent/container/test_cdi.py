"""Devices by name: what a vendor's files make of a container's config."""

import json

import pytest

from agent.container import cdi
from shoal.errors import StartFailed, Unsupported
from shoal.model.container import DeviceMapping

NODES = [{"path": "/dev/zero0", "hostPath": "/dev/zero", "permissions": "r"}]
NIL = {"path": "/dev/nil", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600, "uid": 5}
HOOK = {"hookName": "createContainer", "path": "/bin/true", "args": ["true", "x"]}


def described(*devices, version="0.6.0", kind="example.com/thing", **edits):
    entries = [{"name": name, "containerEdits": own} for name, own in devices]
    return {"cdiVersion": version, "kind": kind, "devices": entries, "containerEdits": edits}


def written(folder, name="a.json", **fields):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps(fields))


def config():
    user = {"uid": 1000, "gid": 1000, "additionalGids": [5]}
    return {
        "process": {"env": ["A=1", "B=2"], "user": user},
        "mounts": [],
        "linux": {"devices": [], "resources": {"devices": [{"allow": False, "access": "rwm"}]}},
    }


def edited(known, *names):
    return cdi.edited(config(), [DeviceMapping(source=name) for name in names], known=known)


def test_a_device_brings_nodes_mounts_variables_and_groups(tmp_path):
    mount = {"hostPath": "/lib/x", "containerPath": "/usr/lib/x", "options": ["ro"]}
    own = {"deviceNodes": NODES, "mounts": [mount], "env": ["A=9", "C=3"], "additionalGids": [5, 44]}
    written(tmp_path, **described(("0", own), ("1", {"deviceNodes": [NIL]}), env=["ALL=yes"]))
    made = edited(cdi.read([str(tmp_path)]), "example.com/thing=0", "example.com/thing=1")
    zero = {"path": "/dev/zero0", "type": "c", "major": 1, "minor": 5}
    nil = {"path": "/dev/nil", "type": "c", "major": 1, "minor": 3}
    assert made["linux"]["devices"] == [
        {**zero, "fileMode": 0o666, "uid": 1000, "gid": 1000},
        {**nil, "fileMode": 0o600, "uid": 5, "gid": 1000},
    ]
    assert made["linux"]["resources"]["devices"][1:] == [
        {"allow": True, "type": "c", "major": 1, "minor": 5, "access": "r"},
        {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
    ]
    assert made["mounts"] == [
        {"destination": "/usr/lib/x", "type": "bind", "source": "/lib/x", "options": ["rbind", "ro"]}
    ]
    assert made["process"]["env"] == ["B=2", "ALL=yes", "A=9", "C=3"]  # a file's own edits once, and first
    assert made["process"]["user"]["additionalGids"] == [5, 44]


def test_without_a_name_nothing_is_read_and_nothing_changes():
    before = config()
    assert cdi.edited(before, [DeviceMapping(source="/dev/null")]) is before


def test_the_later_folder_goes_before(tmp_path):
    for number, folder in enumerate(("etc", "run")):
        written(tmp_path / folder, **described(("0", {"env": [f"N={number}"]})))
    made = edited(cdi.read([f"{tmp_path}/etc", f"{tmp_path}/run", f"{tmp_path}/none"]), "example.com/thing=0")
    assert made["process"]["env"] == ["A=1", "B=2", "N=1"]


def test_yaml_is_read_as_well(tmp_path):
    (tmp_path / "a.yaml").write_text(
        'cdiVersion: "0.5.0"\nkind: example.com/thing\ndevices:\n- name: "0"\n  containerEdits:\n    env: [N=1]\n'
    )
    assert edited(cdi.read([str(tmp_path)]), "example.com/thing=0")["process"]["env"][-1] == "N=1"


def test_what_nothing_describes_is_refused(tmp_path):
    with pytest.raises(StartFailed, match=r"unresolvable CDI devices example\.com/thing=0; no file in /etc/cdi"):
        edited(cdi.read([str(tmp_path)]), "example.com/thing=0")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "a.json"),
        (json.dumps({**described(), "more": 1}), "more"),
        (json.dumps(described(version="7.0.0")), "cdiVersion 7.0.0"),
        (json.dumps(described(("0", {}), kind="no kind")), "is no name of a device"),
        (json.dumps(described(("0", {}), ("0", {}))), "several"),
    ],
)
def test_a_file_that_is_wrong_is_told_by_name(tmp_path, text, why):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(StartFailed, match="unresolvable") as raised:
        edited(cdi.read([str(tmp_path)]), "example.com/thing=0")
    assert why in raised.value.hint


def test_two_files_of_one_folder_with_the_same_device_are_a_conflict(tmp_path):
    for name in ("a.json", "b.json"):
        written(tmp_path, name, **described(("0", {}), ("1", {}) if name == "a.json" else ("2", {})))
    known = cdi.read([str(tmp_path)])
    assert set(known.devices) == {"example.com/thing=1", "example.com/thing=2"}
    with pytest.raises(StartFailed, match=r"example\.com/thing=0 is in several files"):
        edited(known, "example.com/thing=0")


def test_hooks_are_under_the_names_of_their_moments(tmp_path):
    written(tmp_path, **described(("0", {"hooks": [HOOK]})))
    made = edited(cdi.read((tmp_path,)), "example.com/thing=0")
    assert made["hooks"] == {"createContainer": [{"path": "/bin/true", "args": ["true", "x"]}]}


@pytest.mark.parametrize(
    ("own", "error", "words"),
    [
        ({"intelRdt": {"closID": "x"}}, Unsupported, "intelRdt"),
        ({"netDevices": [{"hostInterfaceName": "eth0"}]}, Unsupported, "netDevices"),
        ({"deviceNodes": [{"path": "/dev/nosuch"}]}, StartFailed, "/dev/nosuch: no such file"),
        ({"deviceNodes": [{"path": "/etc"}]}, StartFailed, "not a device node"),
        ({"deviceNodes": [{"path": "/dev/p", "type": "p", "major": 1}]}, Unsupported, "type p"),
    ],
)
def test_what_cannot_be_given_is_refused_by_name(tmp_path, own, error, words):
    written(tmp_path, **described(("0", own)))
    with pytest.raises(error, match=words):
        edited(cdi.read([str(tmp_path)]), "example.com/thing=0")
