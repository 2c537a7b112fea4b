"""`shoal machine` without a host: what is recorded, shown, carried to another computer, and refused."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from pathlib import Path

import pytest

from cli.app import run
from machine.model import Machine, Role, Ssh
from machine.record import Record, Records
from shoal.errors import Conflict

DEAD = "127.0.0.1"


class Desk:
    def __init__(self, records: Records, capsys: pytest.CaptureFixture[str]) -> None:
        self.records = records
        self._capsys = capsys

    def __call__(self, *argv: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        code = run(["machine", argv[0], "-s", str(self.records.folder), *argv[1:]])
        said = self._capsys.readouterr()
        return code, said.out, said.err


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SHOAL_HOST", raising=False)
    with socket.create_server((DEAD, 0)) as gone:
        port = gone.getsockname()[1]
    records = Records(tmp_path / "store")
    n1 = Machine("n1", DEAD, Role.MANAGER, ssh=Ssh("root", port, ("/keys/one",)))
    records.save(Record(n1, version="0.1.0-a", cluster_id="c1", created_at_ns=1))
    records.save(Record(Machine("n2", "n2.example.org", ssh=Ssh(jump="n1")), failed="join: no"))
    return Desk(records, capsys)


def test_a_list_without_machines_is_a_header(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = Desk(Records(tmp_path), capsys)("ls")
    assert (code, out.split()) == (0, "NAME ACTIVE DRIVER STATE URL SWARM DOCKER ERRORS".split())


def test_the_list_says_who_answers_and_what_failed(desk: Desk) -> None:
    code, out, _ = desk("ls", "--filter", "name=n1", "--format", "{{.Name}} {{.State}} {{.Swarm}} {{.DockerVersion}}")
    assert (code, out) == (0, "n1 Stopped c1 (manager) 0.1.0-a\n")
    assert desk("ls", "--filter", "colour=red")[0] == 1


def test_the_active_machine_is_the_one_that_shoal_host_means(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    assert desk("active")[0] == 1
    monkeypatch.setenv("SHOAL_HOST", desk("url", "n1")[1].strip())
    assert desk("active")[:2] == (0, "n1\n")
    monkeypatch.setenv("SHOAL_HOST", "ssh://n2")
    assert desk("active")[:2] == (0, "n2\n")


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("sh", "export SHOAL_MACHINE_NAME=n2"),
        ("fish", "set -gx SHOAL_MACHINE_NAME n2;"),
        ("cmd", "SET SHOAL_MACHINE_NAME=n2"),
        ("powershell", '$Env:SHOAL_MACHINE_NAME = "n2"'),
        ("emacs", '(setenv "SHOAL_MACHINE_NAME" "n2")'),
    ],
)
def test_every_shell_is_spoken_to_in_its_language(desk: Desk, shell: str, line: str) -> None:
    assert desk("env", "--shell", shell, "n2")[1].splitlines()[2] == line
    assert "SHOAL_MACHINE_NAME" in desk("env", "--shell", shell, "-u")[1]


def test_unknown_names_are_told(desk: Desk) -> None:
    for argv in (
        ("ip", "n9"),
        ("url", "n9"),
        ("inspect", "n9"),
        ("ssh", "n9"),
        ("scp", "n9:/a", "b"),
        ("rm", "-y", "n9"),
    ):
        code, _, err = desk(*argv)
        assert (code, "does not exist" in err) == (1, True), argv


def test_inspect_speaks_dockers_language(desk: Desk) -> None:
    (document,) = json.loads(desk("inspect", "n1")[1])
    assert document["Machine"]["SSH"]["Identities"] == ["/keys/one"]
    assert document["ClusterID"] == "c1"


def test_openssh_finds_machines_by_name_in_the_file_that_is_written(desk: Desk) -> None:
    from machine.sshfile import write

    file = write(desk.records)
    said = subprocess.run(["ssh", "-G", "-F", file, "n1"], check=True, capture_output=True, text=True).stdout
    words = dict(line.split(" ", 1) for line in said.splitlines())
    assert (words["hostname"], words["user"], words["identityfile"]) == (DEAD, "root", "/keys/one")
    assert words["stricthostkeychecking"] == "true"
    assert str(desk.records.known_hosts) in words["userknownhostsfile"]
    said = subprocess.run(["ssh", "-G", "-F", file, "n2"], check=True, capture_output=True, text=True).stdout
    assert "proxyjump n1\n" in said


def test_machines_go_to_another_computer_without_keys(
    desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    desk.records.known_hosts.write_text("n1 ssh-ed25519 AAAA\n")
    file = tmp_path / "export.json"
    assert desk("export", "-o", str(file))[0] == 0
    other = Desk(Records(tmp_path / "other"), capsys)
    code, out, err = other("import", str(file))
    assert (code, out.split()) == (0, ["n1", "n2"])
    assert "/keys/one, which is not here" in err
    assert other("import", str(file))[0] == 0
    assert other.records.known_hosts.read_text() == "n1 ssh-ed25519 AAAA\n"
    assert [each.machine for each in other.records.all()] == [each.machine for each in desk.records.all()]
    assert not any(each.unfinished for each in other.records.all())


def test_an_import_never_replaces_another_host(desk: Desk, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "export.json"
    desk("export", "-o", str(file), "n1")
    other = Desk(Records(tmp_path / "other"), capsys)
    other.records.save(Record(Machine("n1", "10.9.9.9")))
    code, _, err = other("import", str(file))
    assert (code, "exists already, at 10.9.9.9" in err) == (1, True)
    assert other("import", str(desk.records.folder / "machines" / "n1.json"))[0] == 1


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (("create", "n3"), 1, "--generic-ip-address is missing"),
        (("create", "-d", "amazonec2", "n3"), 1, 'there is no driver "amazonec2"'),
        (("create", "--generic-ip-address", "-x", "n3"), 1, "no address"),
        (("create", "--generic-ip-address", "a", "../n3"), 1, "no name"),
        (("create", "--generic-ip-address", "a", "--generic-engine-port", "1", "n3"), 1, "is not supported"),
        (("create", "--generic-ip-address", "a", "n1"), 1, "exists already"),
        (("create", "--generic-ip-address", "a", "--join", "n2", "n3"), 1, "n2 is no manager"),
        (("exec", "n1", "true"), 1, "there is no -- before the command"),
        (("plan", "--host-keys", "maybe", "-f", "m.yaml"), 1, "cannot be read"),
    ],
)
def test_what_can_never_be_right_is_refused(desk: Desk, argv: tuple[str, ...], code: int, said: str) -> None:
    ended, _, err = desk(*argv)
    assert (ended, said in err) == (code, True), err


@pytest.mark.parametrize("verb", ["start", "stop", "kill"])
def test_the_power_of_hosts_that_exist_is_not_ours(desk: Desk, verb: str) -> None:
    code, out, err = desk(verb, "n1", "n2")
    assert code == 1
    assert [f'driver "ssh" cannot {verb} {name}' in err for name in ("n1", "n2")] == [True, True], err
    assert out.count('"...') == 2


def test_a_machine_of_another_driver_is_made_shown_and_removed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(__file__).parents[3] / 'contract' / 'driver'}:{os.environ['PATH']}")
    code, _, err = desk("create", "-d", "example", "--driver-opt", "colour=blue", "n3")
    assert (code, "no such option: colour" in err) == (1, True)
    assert desk("create", "-d", "example", "n3")[0] == 1  # nothing there speaks SSH
    record = desk.records.get("n3")
    assert (record.driver, record.machine.address, record.unfinished) == ("example", DEAD, True)
    assert desk("status", "n3")[1] == "Running\n"
    assert desk("stop", "n3")[0] == 0
    assert "Stopped" in desk("ls", "--filter", "driver=example", "--format", "{{.State}}")[1]
    assert desk("rm", "-y", "n3")[0] == 0
    assert desk.records.find("n3") is None


def test_sudoers_are_said_for_the_users_that_machines_have(desk: Desk) -> None:
    assert "no machine has a user but root" in desk("sudoers")[2]
    desk.records.save(Record(Machine("n3", DEAD, ssh=Ssh("deploy"))))
    code, out, _ = desk("sudoers")
    assert code == 0
    assert "\ndeploy ALL=(root) NOPASSWD: /bin/sh, /usr/bin/sh\n" in out
    assert "\ndeploy ALL=(root) /bin/sh, /usr/bin/sh\n" in desk("sudoers", "--password")[1]
    assert "is no name of a user" in desk("sudoers", "--user", "a b")[2]


def test_removal_asks_first(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    assert desk("rm", "n2")[0] == 1
    assert desk.records.find("n2") is not None
    code, out, _ = desk("rm", "-y", "n2")
    assert (code, "Successfully removed n2" in out) == (0, True)
    assert desk.records.find("n2") is None


@pytest.mark.parametrize("argv", [("upgrade",), ("rollback", "n1"), ("rm", "-y", "--purge", "n1")])
def test_a_machine_that_another_run_holds_is_left_alone(desk: Desk, argv: tuple[str, ...]) -> None:
    before = desk.records.get("n1")
    with desk.records.held(["n1"], "ann@desk (pid 7) since noon"):
        code, _, err = desk(*argv)
    assert (code, err) == (1, "Error: n1 is worked on by ann@desk (pid 7) since noon; wait for its end\n")
    assert desk.records.get("n1") == before
    with pytest.raises(Conflict), desk.records.held(["n1"], "ann"), desk.records.held(["n2", "n1"], "bob"):
        pass
    with desk.records.held(["n2", "n1"], "bob"):
        pass
