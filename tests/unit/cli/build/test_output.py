"""The flags of a build as values."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from cli.build import output as outputs
from cli.build.output import Output
from cli.build.ssh import agents
from shoal.errors import InvalidArgument, NotFound, ShoalError, Unsupported


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], Output("image")),
        (["out"], Output("local", "out")),
        (["-"], Output("tar", "-")),
        (["type=local,dest=a b"], Output("local", "a b")),
        (['type=tar,"dest=a,b"'], Output("tar", "a,b")),
        (["type=tar"], Output("tar", "-")),
        (["type=docker"], Output("image")),
        (["type=docker,dest=x"], Output("archive", "x")),
        (["type=oci"], Output("archive", "-")),
        (["type=registry"], Output("push")),
        (["type=image,push=true"], Output("push")),
        (["type=cacheonly"], Output("none")),
    ],
)
def test_where_the_result_goes(texts: list[str], expected: Output) -> None:
    assert outputs.output(texts) == expected


@pytest.mark.parametrize(
    ("texts", "error"),
    [
        (["type=oci,dest=x,push=true"], InvalidArgument),
        (["a", "b"], Unsupported),
        (["type=local"], InvalidArgument),
        (["type=what"], InvalidArgument),
        (["type=local,dest=x,more=y"], InvalidArgument),
    ],
)
def test_what_cannot_be_had_is_refused(texts: list[str], error: type[ShoalError]) -> None:
    with pytest.raises(error):
        outputs.output(texts)


def test_a_secret_is_a_file_or_a_variable(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"from file")
    own = {"TOKEN": "from env"}
    given = [f"id=a,src={tmp_path}/key", "id=b,env=TOKEN", "id=TOKEN", "type=env,id=c,source=TOKEN"]
    assert outputs.secrets(given, own) == {
        "a": b"from file",
        "b": b"from env",
        "TOKEN": b"from env",
        "c": b"from env",
    }
    for wrong in ("id=x,src=/nowhere", "id=x,env=NOWHERE", "id=nowhere"):
        with pytest.raises(NotFound):
            outputs.secrets([wrong], own)


def test_an_argument_without_a_value_is_the_environments_or_none() -> None:
    assert outputs.arguments(["A=1", "B", "C", "D="], {"B": "own"}) == {"A": "1", "B": "own", "D": ""}
    with pytest.raises(InvalidArgument):
        outputs.arguments(["=x"], {})


def test_the_moment_of_a_build_is_an_argument_before_it_is_the_environments() -> None:
    assert outputs.epoch({}, {}) is None
    assert outputs.epoch({}, {"SOURCE_DATE_EPOCH": "5"}) == 5
    assert outputs.epoch({"SOURCE_DATE_EPOCH": "6"}, {"SOURCE_DATE_EPOCH": "5"}) == 6
    with pytest.raises(InvalidArgument):
        outputs.epoch({"SOURCE_DATE_EPOCH": "yesterday"}, {})


def test_an_ssh_agent_is_a_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "agent")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        assert agents(["default", f"other={path}"], {"SSH_AUTH_SOCK": path}) == {"default": path, "other": path}
    with pytest.raises(NotFound, match="SSH_AUTH_SOCK is not set"):
        agents(["default"], {})
    (tmp_path / "key").touch()
    with pytest.raises(Unsupported, match="ssh-add"):
        agents([f"default={tmp_path}/key"], {})
