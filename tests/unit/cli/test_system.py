"""What the client says of itself when nobody answers, and how a command line is refused."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from cli.app import run
from cli.endpoint import parse
from manager.ca.authority import Authority
from shoal.errors import InvalidArgument
from shoal.model.node import Role

NOW = 1_700_000_000_000_000_000


@pytest.mark.parametrize("command", ["version", "info"])
def test_the_clients_part_needs_no_daemon(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert run(["-H", f"unix://{tmp_path}/none.sock", command]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("Client:\n Version: ")
    assert "Cannot connect to the Shoal agent" in err


def test_a_flag_before_the_command_is_refused_with_its_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--nosuch", "ps"]) == 125
    assert "Usage:  shoal [OPTIONS] COMMAND\n" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["unix:", "unix://", "n1:", "ssh://", "http://n1", "tcp://n1:0", "n1,", "n1,n2:x"])
def test_a_host_that_cannot_be_is_refused(host: str) -> None:
    with pytest.raises(InvalidArgument, match=r"invalid host"):
        parse(host)


def test_several_managers_stand_after_commas() -> None:
    assert parse("n1,10.0.0.2:4000,[fd00::3]:2377").managers == (("n1", 2377), ("10.0.0.2", 4000), ("fd00::3", 2377))
    assert parse("tcp://n1").managers == (("n1", 2377),)


def test_when_no_manager_answers_all_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = Authority.create("c1", NOW).new_identity(
        node_id="n1", cluster_id="c1", role=Role.MANAGER, life_ns=10**12, now_ns=NOW
    )
    for name, text in {"ca": own.root_ca_pem, "cert": own.certificate_pem, "key": own.key_pem}.items():
        (tmp_path / name).write_text(text)
    flags = ["--tlscacert", f"{tmp_path}/ca", "--tlscert", f"{tmp_path}/cert", "--tlskey", f"{tmp_path}/key"]
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        host = ",".join(f"127.0.0.1:{each.getsockname()[1]}" for each in (one, two))
    assert run(["-H", host, *flags, "node", "ls"]) == 1
    assert f"Cannot connect to the Shoal manager at {host}: " in capsys.readouterr().err


def test_help_names_each_default_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Proxy received signals to the process (default true) --stop-signal" in out
    assert "b'" not in out
