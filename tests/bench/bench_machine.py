"""What an operator of many hosts waits for: the first install on twenty bare hosts, a run that finds nothing to do, and
an upload. scp stands beside the last, on the same host with the same key.

The hosts' disks are memory; twenty of them hold twenty copies of what is installed.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

from machine.artefact import Target, obtain
from machine.model import Machine, Ssh
from machine.transport.config import Config
from machine.transport.connection import Connection, Rules
from machine.transport.credential import Credentials
from machine.transport.hostkey import Policy
from tests.bench.row import Row, in_turns, row
from tests.cluster.test_machine import Desk, bare_hosts

HOSTS = 20
NO_OPS = 3
UPLOADS = 5
UPLOAD_BYTES = 128 << 20


def rows() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder, bare_hosts(HOSTS, Path(folder)) as desk:
        return [*provisioning(desk), upload(desk, Path(folder))]


def provisioning(desk: Desk) -> list[Row]:
    """The artefact is there already, as for everybody but the first; "installed" counts that step of all hosts."""
    name = os.uname()
    obtain(Target("3.11", name.machine), desk.store / "artefacts")
    start = time.time()
    code, said = desk.run("apply")
    assert code == 0, said
    whole = time.time() - start
    lines = [line for line in desk.journal() if str(line["step"]).startswith("install")]
    installed = max(int(str(line["at_ns"])) for line in lines) / 1e9 - start
    taken = []
    for _ in range(NO_OPS):
        start = time.perf_counter()
        code, said = desk.run("apply")
        taken.append(time.perf_counter() - start)
        assert (code, said.count("as wanted")) == (0, HOSTS), said
    return [
        row("machine_install_20", [installed], [], "s"),
        row("machine_cluster_of_20", [whole], [], "s"),
        row("machine_no_op_20", taken, [], "s"),
    ]


def upload(desk: Desk, folder: Path) -> Row:
    """Time for the same bytes; a ratio of 1.11 is 0.9 of scp's rate."""
    source = folder / "source"
    source.write_bytes(os.urandom(1 << 20) * (UPLOAD_BYTES >> 20))
    address = desk.lab.addresses["n1"]
    machine = Machine("n1", address, ssh=Ssh("root", identities=(str(desk.key),)))
    rules = Rules(Credentials(None), own_hosts=folder / "known", policy=Policy.ACCEPT_NEW)
    way = Config("").way(machine)

    def ours() -> None:
        connection = Connection.open(way, rules)
        connection.upload(source, "/tmp/ours")
        connection.close()

    options = ["-i", str(desk.key), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]

    def peer() -> None:
        argv = ["scp", "-q", "-F", "none", *options, str(source), f"root@{address}:/tmp/peer"]
        subprocess.run(argv, check=True, capture_output=True)

    mine, theirs = in_turns(ours, peer, UPLOADS)
    return row("machine_upload_128mib", mine, theirs, "ms")
