"""Docker's own file, ~/.docker/config.json, read and written as docker does: what we do not know in it stays.

It names helpers (`docker-credential-*`), programs that keep secrets elsewhere; one is asked as docker asks it. What the
credentials are for is `credentials`' business.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
from pathlib import Path
from typing import Any

from shoal.errors import InvalidArgument, ShoalError
from shoal.files import write_atomic

_HELPER_TIMEOUT_S = 30
_NOT_FOUND = "credentials not found"


def path() -> Path:
    """Where the file is, whether it exists or not."""
    return Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker") / "config.json"


def load() -> dict[str, Any]:
    """What stands there; empty where there is no such file. Raises InvalidArgument for a broken one."""
    file = path()
    try:
        config = json.loads(file.read_bytes() or b"{}")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"{file} cannot be read: {error}", hint="repair or remove it") from error
    if not isinstance(config, dict) or not all(
        isinstance(config.get(key, {}), dict) for key in ("auths", "credHelpers")
    ):
        raise InvalidArgument(f"{file} is not docker's configuration", hint="repair or remove it")
    return config


def save(config: dict[str, Any]) -> None:
    """Replace the file, or what it is a link to; only its owner can read a new one."""
    file = path().resolve()
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    mode = stat.S_IMODE(file.stat().st_mode) if file.exists() else 0o600
    write_atomic(file, json.dumps(config, indent="\t", ensure_ascii=False).encode(), mode=mode)


def helper_of(config: dict[str, Any], server: str) -> str:
    """The helper that keeps a server's secret; empty where the file itself does."""
    return str(config.get("credHelpers", {}).get(server) or config.get("credsStore") or "")


def ask(helper: str, verb: str, said: str) -> str | None:
    """What a helper answers; None where it has nothing. Raises ShoalError for one that fails."""
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, verb], input=said.encode(), capture_output=True, timeout=_HELPER_TIMEOUT_S, check=False
        )
    except FileNotFoundError as error:
        raise ShoalError(
            f"{program} is not installed", hint="install it, or take it out of docker's config.json"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ShoalError(f"{program} did not answer within {_HELPER_TIMEOUT_S} s") from error
    if done.returncode == 0:
        return done.stdout.decode(errors="replace")
    complaint = (done.stdout + done.stderr).decode(errors="replace").strip()
    if _NOT_FOUND in complaint:
        return None
    raise ShoalError(f"{program} failed: {complaint or f'exit code {done.returncode}'}")
