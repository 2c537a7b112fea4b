"""Contexts: made, changed, carried to another computer, removed."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from cli.app import run
from cli.context.carriage import pack, unpack
from cli.endpoint import NO_TLS, Context, Contexts, Tls
from shoal.errors import InvalidArgument


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user's files are, with a certificate in the working folder."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    for name in ("SHOAL_HOST", "SHOAL_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    for name in Tls._fields:
        (tmp_path / f"{name}.pem").write_text(f"{name}'s text")
    return tmp_path / "home/shoal"


def with_certificate(host: str = "n1:2377,n2") -> list[str]:
    return ["--docker", f"host={host},ca=ca.pem,cert=cert.pem,key=key.pem"]


def stored(name: str = "rack") -> Context:
    return Contexts.load().get(name)


def test_a_certificate_is_found_from_anywhere(tmp_path: Path) -> None:
    assert run(["context", "create", "rack", *with_certificate(), "--description", "two managers"]) == 0
    files = Tls(*(f"{tmp_path}/{name}.pem" for name in Tls._fields))
    assert stored() == Context("rack", "n1:2377,n2", "two managers", files)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["rack"], "a context needs a daemon"),
        (["rack", "--docker", "host=n1,ca=ca.pem"], "cert is missing"),
        (["rack", "--docker", "host=n1,ca=ca.pem,cert=nosuch,key=key.pem"], "cert=nosuch cannot be read: No such file"),
        (["rack", "--docker", "host=n1,skip-tls-verify=true"], "unrecognized config key: skip-tls-verify"),
        (["rack", "--host", "http://n1"], "invalid host"),
        (["default", "--host", "n1"], 'context "default" already exists'),
        (["../rack", "--host", "n1"], "../rack"),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], told: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["context", "create", *words]) in (1, 125)
    assert told in capsys.readouterr().err
    assert not home.exists()


def test_an_update_changes_what_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    run(["context", "create", "rack", *with_certificate()])
    before = stored()
    assert run(["context", "update", "rack", "--description", "new"]) == 0
    assert stored() == before._replace(description="new")
    assert run(["context", "update", "rack", "--host", "ssh://root@n1"]) == 0
    assert stored() == Context("rack", "ssh://root@n1", "new", NO_TLS)
    assert run(["context", "update", "default", "--host", "n1"]) == 1
    assert run(["context", "update", "nosuch", "--host", "n1"]) == 1
    assert 'context "nosuch" does not exist' in capsys.readouterr().err


def test_a_context_goes_to_another_computer_with_its_certificate(home: Path, tmp_path: Path) -> None:
    run(["context", "create", "rack", *with_certificate(), "--description", "d"])
    assert run(["context", "export", "rack"]) == 0
    assert (tmp_path / "rack.dockercontext").stat().st_mode & 0o777 == 0o600
    for name in Tls._fields:
        (tmp_path / f"{name}.pem").unlink()
    assert run(["context", "import", "other", "rack.dockercontext"]) == 0
    found = stored("other")
    assert (found.host, found.description) == ("n1:2377,n2", "d")
    assert [Path(each).read_text() for each in found.tls] == ["ca's text", "cert's text", "key's text"]
    assert all(os.stat(each).st_mode & 0o777 == 0o600 for each in found.tls)
    assert run(["context", "rm", "other"]) == 0
    assert os.listdir(home) == ["contexts.json"]


def test_files_that_others_may_use_stay(tmp_path: Path) -> None:
    run(["context", "create", "rack", *with_certificate()])
    assert run(["context", "rm", "rack"]) == 0
    assert (tmp_path / "key.pem").exists()


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(["context", "create", "rack", "--host", "n1"])
    (tmp_path / "there").write_text("mine")
    assert run(["context", "export", "rack", "there"]) == 1
    assert "there is there already" in capsys.readouterr().err
    run(["context", "export", "rack"])
    assert run(["context", "import", "rack", "rack.dockercontext"]) == 1
    assert run(["context", "import", "two", "rack.dockercontext"]) == 0


def tar(**files: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name.replace("__", "/").replace("_", "."))
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return out.getvalue()


META = json.dumps({"Name": "x", "Metadata": {}, "Endpoints": {"docker": {"Host": "tcp://n1:2376"}}})


def test_docker_s_archives_are_read() -> None:
    found, pems = unpack(
        tar(meta_json=META, tls__docker__ca_pem="1", tls__docker__cert_pem="2", tls__docker__key_pem="3"), "f"
    )
    assert (found.host, pems) == ("tcp://n1:2376", {"ca": b"1", "cert": b"2", "key": b"3"})
    assert unpack(pack(Context("a", "n1", "d")), "f") == (Context("", "n1", "d"), {})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        tar(meta_json="{"),
        tar(meta_json="[]"),
        tar(meta_json='{"Endpoints": {"docker": {"Host": 7}}}'),
        tar(meta_json=META.replace("tcp://n1:2376", "http://n1")),
        tar(meta_json=META, tls__docker__key_pem="1"),
        tar(other=META),
        pack(Context("a", "n1"))[:700],
    ],
)
def test_what_is_no_context_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidArgument):
        unpack(data, "f")
