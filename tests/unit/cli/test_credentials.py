"""Docker's file of credentials: read, written so that docker reads it, and left alone where it is not ours."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from cli import credentials
from cli.app import run
from cli.credentials import Credentials
from shoal.errors import InvalidArgument, ShoalError

HUB = "https://index.docker.io/v1/"
# What docker-credential-pass and its like do, with files.
HELPER = """#!/usr/bin/env python3
import json, pathlib, sys
folder = pathlib.Path(sys.argv[0]).parent / "kept"
folder.mkdir(exist_ok=True)
said = sys.stdin.read()
server = json.loads(said)["ServerURL"] if sys.argv[1] == "store" else said.strip()
file = folder / server.replace("/", "_")
if sys.argv[1] == "store":
    file.write_text(said)
elif sys.argv[1] == "erase":
    file.unlink(missing_ok=True)
elif not file.exists():
    print("credentials not found in native keychain")
    sys.exit(1)
else:
    print(file.read_text())
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    helper = tmp_path / "bin/docker-credential-files"
    helper.parent.mkdir()
    helper.write_text(HELPER)
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{helper.parent}:/usr/bin:/bin")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return tmp_path / "docker"


def write(home: Path, config: dict[str, Any]) -> None:
    home.mkdir(exist_ok=True)
    (home / "config.json").write_text(json.dumps(config))


def written(home: Path) -> Any:
    return json.loads((home / "config.json").read_text())


def test_what_is_kept_is_what_docker_would_keep(home: Path) -> None:
    write(home, {"detachKeys": "ctrl-x", "auths": {"a.example": {"auth": "YTpi"}}})
    assert credentials.keep("127.0.0.1:5000", "tester", "secret")
    assert (home / "config.json").read_text() == (
        '{\n\t"detachKeys": "ctrl-x",\n\t"auths": {\n\t\t"a.example": {\n\t\t\t"auth": "YTpi"\n\t\t},\n'
        '\t\t"127.0.0.1:5000": {\n\t\t\t"auth": "dGVzdGVyOnNlY3JldA=="\n\t\t}\n\t}\n}'
    )
    assert credentials.find("127.0.0.1:5000/app:1") == Credentials("tester", "secret")
    assert credentials.find("a.example/app") == Credentials("a", "b")
    credentials.forget("127.0.0.1:5000")
    credentials.forget("127.0.0.1:5000")
    assert written(home) == {"detachKeys": "ctrl-x", "auths": {"a.example": {"auth": "YTpi"}}}


def test_a_new_file_is_its_owners_and_a_link_stays_one(home: Path, tmp_path: Path) -> None:
    assert credentials.find("app") == Credentials()
    credentials.keep("a.example", "a", "b")
    assert stat.S_IMODE((home / "config.json").stat().st_mode) == 0o600
    (home / "config.json").rename(tmp_path / "elsewhere.json")
    (home / "config.json").symlink_to(tmp_path / "elsewhere.json")
    credentials.forget("a.example")
    assert (home / "config.json").is_symlink()
    assert written(home) == {"auths": {}}


@pytest.mark.parametrize("config", [{"credsStore": "files"}, {"credHelpers": {"a.example": "files"}}])
def test_a_helper_keeps_the_secret_and_the_file_only_the_name(home: Path, config: dict[str, Any]) -> None:
    write(home, config)
    assert credentials.find("a.example/app") == Credentials()
    assert not credentials.keep("a.example", "me", "secret")
    assert written(home)["auths"] == {"a.example": {}}
    assert credentials.find("a.example/app:1") == Credentials("me", "secret")
    credentials.forget("a.example")
    assert credentials.find("a.example/app:1") == Credentials()
    credentials.keep("a.example", "me", "", identity_token="lasting")
    assert credentials.find("a.example/app") == Credentials(credentials.TOKEN_USER, "lasting")


def test_docker_hub_has_a_name_of_its_own(home: Path) -> None:
    credentials.keep(credentials.host_of(""), "me", "secret")
    assert list(written(home)["auths"]) == [HUB]
    for name in ("app", "team/app:1", "docker.io/app", "docker.io/team/app"):
        assert credentials.find(name) == Credentials("me", "secret")
    assert credentials.host_of("https://reg.example:5000/v2/") == "reg.example:5000"
    assert credentials.host_of(HUB) == credentials.host_of("docker.io") == "docker.io"


def test_an_identity_token_stands_for_the_password(home: Path) -> None:
    credentials.keep("a.example", "me", "secret", identity_token="lasting")
    assert written(home)["auths"]["a.example"] == {"auth": "bWU6", "identitytoken": "lasting"}
    assert credentials.find("a.example/app") == Credentials(credentials.TOKEN_USER, "lasting")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "cannot be read"),
        ("[]", "is not docker's configuration"),
        ('{"auths": []}', "is not docker's configuration"),
        ('{"auths": {"a.example": {"auth": "!"}}}', "broken auth entry"),
        ('{"auths": {"a.example": {"auth": "YQ=="}}}', "without a password"),
    ],
)
def test_a_broken_file_is_named(home: Path, text: str, words: str) -> None:
    home.mkdir()
    (home / "config.json").write_text(text)
    with pytest.raises(InvalidArgument, match=words):
        credentials.find("a.example/app")


def test_a_helper_that_is_not_there_or_fails_is_named(home: Path, tmp_path: Path) -> None:
    write(home, {"credsStore": "nowhere"})
    with pytest.raises(ShoalError, match="docker-credential-nowhere is not installed"):
        credentials.find("a.example/app")
    broken = tmp_path / "bin/docker-credential-nowhere"
    broken.write_text("#!/bin/sh\necho locked >&2\nexit 3\n")
    broken.chmod(0o755)
    with pytest.raises(ShoalError, match="docker-credential-nowhere failed: locked"):
        credentials.find("a.example/app")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--password-stdin"], "the --password-stdin option requires --username to be set"),
        (["-u", "a", "-p", "b", "--password-stdin"], "cannot specify both --password and --password-stdin"),
        (["-u", "a"], "Cannot perform an interactive login from a non TTY device"),
        ([], "Cannot perform an interactive login from a non TTY device"),
    ],
)
def test_a_login_that_cannot_be(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], args: list[str], words: str
) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as listening:  # nobody is asked
        listening.bind(f"{tmp_path}/sock")
        listening.listen()
        assert run(["-H", f"unix://{tmp_path}/sock", "login", *args, "a.example"]) == 1
    assert words in capsys.readouterr().err


def test_a_logout_needs_no_daemon(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    credentials.keep("a.example", "a", "b")
    assert run(["logout", "a.example"]) == 0
    assert capsys.readouterr().out == "Removing login credentials for a.example\n"
    assert written(home) == {"auths": {}}
