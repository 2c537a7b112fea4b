"""A registry's credentials, from where docker keeps them: ~/.docker/config.json and its helpers."""

from __future__ import annotations

import base64
import binascii
import json
import os
import subprocess
from typing import Any, NamedTuple

from shoal.errors import InvalidArgument, ShoalError

_HUB = "https://index.docker.io/v1/"
_HELPER_TIMEOUT_S = 30


class Credentials(NamedTuple):
    username: str = ""
    password: str = ""


def registry_of(reference: str) -> str:
    """The registry's host of an image: what stands before the first slash when it looks like a host."""
    first, slash, _ = reference.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else "docker.io"


def find(reference: str) -> Credentials:
    """The credentials for a reference's registry; empty ones when there are none.

    Raises InvalidArgument for a broken file, ShoalError for a helper that fails.
    """
    folder = os.environ.get("DOCKER_CONFIG") or os.path.join(os.path.expanduser("~"), ".docker")  # noqa: PTH111, PTH118
    path = f"{folder}/config.json"
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123
            config = json.load(file)
    except FileNotFoundError:
        return Credentials()
    except (OSError, ValueError) as error:
        raise InvalidArgument(f"{path} cannot be read: {error}", hint="repair or remove it") from error
    registry = registry_of(reference)
    names = [_HUB, "index.docker.io", "docker.io"] if registry == "docker.io" else [registry, f"https://{registry}"]
    helper = _helper(config, names)
    if helper:
        return _ask(helper, names[0])
    auths = config.get("auths", {})
    for name in [*names, *(f"{each}/" for each in names)]:
        if name in auths:
            return _decoded(auths[name], path)
    return Credentials()


def _helper(config: dict[str, Any], names: list[str]) -> str:
    for name in names:
        if name in config.get("credHelpers", {}):
            return str(config["credHelpers"][name])
    return str(config.get("credsStore", ""))


def _decoded(entry: dict[str, str], path: str) -> Credentials:
    if entry.get("identitytoken"):
        raise InvalidArgument(
            f"{path} holds an identity token, which is not supported yet", hint="log in with a password"
        )
    if "auth" not in entry:
        return Credentials(entry.get("username", ""), entry.get("password", ""))
    try:
        user, colon, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{path} holds a broken auth entry: {error}", hint="log in again") from error
    if not colon:
        raise InvalidArgument(f"{path} holds an auth entry without a password", hint="log in again")
    return Credentials(user, password.rstrip("\0"))


def _ask(helper: str, server: str) -> Credentials:
    """Docker's protocol for helpers: the server on stdin, JSON on stdout."""
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run(
            [program, "get"], input=server.encode(), capture_output=True, timeout=_HELPER_TIMEOUT_S, check=False
        )
    except FileNotFoundError as error:
        raise ShoalError(
            f"{program} is not installed", hint="install it, or take it out of docker's config.json"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ShoalError(f"{program} did not answer within {_HELPER_TIMEOUT_S} s") from error
    said = (done.stdout + done.stderr).decode(errors="replace").strip()
    if done.returncode:
        if "credentials not found" in said:
            return Credentials()
        raise ShoalError(f"{program} failed: {said}")
    answer = json.loads(done.stdout)
    return Credentials(answer["Username"], answer["Secret"])
