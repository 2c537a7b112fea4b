"""What a user types and reads: login, push, pull, search, logout, as docker says it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import re
import sys
import termios
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.kernel.container.conftest import ROOMS, Shell, engine, own_network, shell
from tests.registry import PASSWORD, USER, Registry

__all__ = ["engine", "own_network", "shell"]
pytestmark = pytest.mark.kernel
DIGEST = r"sha256:[0-9a-f]{64}"


@pytest.fixture
async def registry(shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """One that wants the user's password, in the network of the engine; `busybox` is tagged for it."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    made = await asyncio.to_thread(Registry(tmp_path / "registry", users=True).start)
    for tag in ("1", "2"):
        assert (await shell("tag", "busybox", f"{made.host}/team/box:{tag}")).code == 0
    yield made.host
    made.kill()


async def test_a_day_with_a_registry(shell: Shell, registry: str, tmp_path: Path) -> None:
    name = f"{registry}/team/box"
    refused = await shell("push", f"{name}:1")
    assert (refused.code, "no basic auth credentials" in refused.err) == (1, True)
    wrong = await shell("login", "-u", USER, "-p", "wrong", registry)
    assert wrong.code == 1
    assert "WARNING! Using --password via the CLI is insecure. Use --password-stdin.\n" in wrong.err
    assert f"login attempt to http://{registry}/v2/ failed with status: 401 Unauthorized" in wrong.err
    assert not (tmp_path / "docker").exists()

    right = await shell("login", "-u", USER, "--password-stdin", registry, input=f"{PASSWORD}\n".encode())
    assert (right.code, right.text) == (0, "Login Succeeded\n")
    assert f"WARNING! Your credentials are stored unencrypted in '{tmp_path}/docker/config.json'." in right.err
    assert list(json.loads((tmp_path / "docker/config.json").read_text())["auths"]) == [registry]
    again = await shell("login", registry)
    assert (again.text, "[Username: tester]" in again.err) == ("Login Succeeded\n", True)

    pushed = await shell("push", f"{name}:1")
    layer = r"[0-9a-f]{12}"
    head = rf"The push refers to repository \[{re.escape(name)}\]\n{layer}: Preparing\n"
    done = rf"1: digest: {DIGEST} size: \d+\n"
    assert re.fullmatch(rf"{head}{layer}: Pushed\n{done}", pushed.text), pushed
    everything = await shell("push", "-a", name)
    assert everything.text.count("Layer already exists") == 2 and "2: digest: sha256:" in everything.text
    assert (await shell("push", "-q", f"{name}:2")).text == f"{name}:2\n"
    missing = await shell("push", f"{name}:none")
    assert f"tag does not exist: {name}:none" in missing.err

    for each in (f"{name}:1", f"{name}:2", "busybox"):
        assert (await shell("rmi", each)).code == 0
    pulled = await shell("pull", "-a", name)
    tag = rf"\d: Pulling from team/box\n(?:{layer}: [A-Z][A-Za-z ]+\n)*Digest: {DIGEST}\n"
    assert re.fullmatch(rf"({tag}){{2}}Status: Downloaded newer image for {name}\n{name}\n", pulled.text), pulled.text
    assert "Downloading" not in pulled.text  # what counts is for terminals
    assert f"Status: Image is up to date for {name}:1" in (await shell("pull", f"{name}:1")).text
    assert (await shell("pull", "-q", f"{name}:2")).text == f"{name}:2\n"
    assert (await shell("pull", "-a", f"{name}:1")).code == 1
    wide = await shell("pull", "--platform", "linux/arm64", f"{name}:1")
    assert (wide.code, "linux/arm64" in wide.err) == (1, True)
    found = await shell("search", f"{registry}/box", "--format", "{{.Name}}")
    assert found.text == f"{name}\n"
    many = await shell("search", f"{registry}/box", "--limit", "101")
    assert (many.code, "limit 101 is outside the range of [1, 100]" in many.err) == (1, True)
    assert (await shell("logout", registry)).text == f"Removing login credentials for {registry}\n"
    assert (await shell("pull", f"{name}:1")).code == 1


async def test_a_terminal_shows_bars_and_asks_for_the_password(shell: Shell, registry: str, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 160))
    os.set_blocking(ours, False)

    async def typed(*args: str, keys: bytes = b"") -> str:
        """What the screen shows."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOMS)!r}); from cli.app import main; main()",
            "-H", f"unix://{tmp_path}/cli.sock", *args,
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
            env={**os.environ, "SHOAL_WARM": "0", "TERM": "xterm"},
        )  # fmt: skip
        seen, ended = b"", asyncio.ensure_future(process.wait())
        while True:
            over = ended.done()
            with contextlib.suppress(BlockingIOError):
                seen += os.read(ours, 65536)
                continue
            if over:
                break
            if keys and seen.rstrip().endswith(b"Password:"):
                os.write(ours, keys)
                keys = b""
            await asyncio.sleep(0.02)
        return seen.decode()

    said = await typed("login", "-u", USER, registry, keys=f"{PASSWORD}\n".encode())
    assert "Login Succeeded" in said and PASSWORD not in said
    said = await typed("push", f"{registry}/team/box:1")
    assert re.search(r"[0-9a-f]{12}: Pushing \[=*>? *\] +[\d.]+[kM]?B/[\d.]+MB", said), said
    assert "\x1b[2K" in said
    os.close(ours)
    os.close(theirs)
