"""A real sshd on loopback, in a mount namespace whose /etc is a copy: users, passwords and sudo's rules are its own."""

from __future__ import annotations

import base64
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from machine.transport.config import Hop
from machine.transport.connection import Connection, Rules
from machine.transport.credential import Credentials, Prompt
from machine.transport.hostkey import Policy

PASSWORD = "correct horse"
SCRIPT = """
set -e
mount --make-rprivate /
mount -t tmpfs none "$1/etc"
mkdir "$1/etc/upper" "$1/etc/work"
mount -t overlay -o "lowerdir=/etc,upperdir=$1/etc/upper,workdir=$1/etc/work" none /etc
useradd --no-create-home --home-dir / --shell /bin/sh ann
echo "ann:$2" | chpasswd
printf 'ann ALL=(ALL) ALL\\nDefaults !lecture, timestamp_timeout=0\\n' > /etc/sudoers.d/ann
cp "$1/keys" /etc/ssh/test_keys
mkdir -p /run/sshd
exec /usr/sbin/sshd -D -e -f "$1/sshd_config"
"""


class Server:
    """The sshd, and a folder with the keys of both sides: `user` is let in as root, `locked` has a passphrase."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port

    def keygen(self, *argv: str | Path) -> None:
        subprocess.run(["ssh-keygen", "-q", *argv], check=True, capture_output=True)

    def hop(self, *, user: str = "root", keys: tuple[str, ...] = ("user",), agent: str = "") -> Hop:
        identities = tuple(str(self.folder / key) for key in keys)
        known = (str(self.folder / "known_hosts"),)
        return Hop("127.0.0.1", self.port, user, "127.0.0.1", identities, not agent, known, agent)

    def rules(self, prompt: Prompt | None = None, *, password: str = "", sudo_password: str = "") -> Rules:
        credentials = Credentials(prompt, password=password, sudo_password=sudo_password)
        return Rules(credentials, own_hosts=self.folder / "own", policy=Policy.STRICT, pause=lambda _: None)

    def connect(self, hop: Hop | None = None, rules: Rules | None = None) -> Connection:
        return Connection.open([hop or self.hop()], rules or self.rules())


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("sshd")
    (folder / "etc").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    made = Server(folder, port)
    for name, phrase in (
        ("user", ""),
        ("other", ""),
        ("locked", "open sesame"),
        ("host", ""),
        ("ca", ""),
        ("bearer", ""),
    ):
        made.keygen("-t", "ed25519", "-N", phrase, "-f", folder / name)
    made.keygen("-s", folder / "ca", "-I", "host", "-h", "-n", "127.0.0.1", folder / "host.pub")
    made.keygen("-s", folder / "ca", "-I", "bearer", "-n", "root", folder / "bearer.pub")
    keys = "".join((folder / f"{name}.pub").read_text() for name in ("user", "locked"))
    (folder / "keys").write_text(keys)
    options = {
        "ListenAddress": f"127.0.0.1:{port}",
        "HostKey": folder / "host",
        "HostCertificate": folder / "host-cert.pub",
        "AuthorizedKeysFile": "/etc/ssh/test_keys",
        "TrustedUserCAKeys": folder / "ca.pub",
        "PermitRootLogin": "yes",
        "StrictModes": "no",
        "UsePAM": "no",
        "MaxStartups": "100",
        "PidFile": "none",
    }
    (folder / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in options.items()))
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    argv = ["unshare", "--mount", "sh", "-c", SCRIPT, "sh", folder, PASSWORD]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while "listening" not in (folder / "log").read_text():
            assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.02)
        yield made
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def once() -> Callable[[str], Prompt]:
    """A person who gives one answer, and would rather not be asked again."""

    def make(answer: str) -> Prompt:
        left = [answer]
        return lambda question: left.pop() if left else pytest.fail(f"asked again: {question}")

    return make


def public(path: Path) -> bytes:
    return base64.b64decode(path.read_text().split()[1])
