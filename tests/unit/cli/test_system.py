"""What the client says of itself when nobody answers, and how a command line is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.app import run
from cli.endpoint import parse
from shoal.errors import InvalidArgument


@pytest.mark.parametrize("command", ["version", "info"])
def test_the_clients_part_needs_no_daemon(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert run(["-H", f"unix://{tmp_path}/none.sock", command]) == 1
    out, err = capsys.readouterr()
    assert out.startswith("Client:\n Version: ")
    assert "Cannot connect to the Shoal agent" in err


def test_a_flag_before_the_command_is_refused_with_its_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--nosuch", "ps"]) == 125
    assert "Usage:  shoal [OPTIONS] COMMAND\n" in capsys.readouterr().err


@pytest.mark.parametrize("host", ["unix:", "unix://", "n1:", "ssh://", "http://n1", "tcp://n1:0"])
def test_a_host_that_cannot_be_is_refused(host: str) -> None:
    with pytest.raises(InvalidArgument, match=r"invalid host"):
        parse(host)


def test_help_names_each_default_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Proxy received signals to the process (default true) --stop-signal" in out
    assert "b'" not in out
