"""Three managers are made of bare hosts by one inventory, and get another version while the cluster takes writes."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.cluster.conftest import eventually
from tests.cluster.test_machine import bare_hosts
from tests.cluster.test_machine_upgrade import newer, versions
from tests.cluster.test_managers import HOSTS, Managers


class Writer:
    """Writes all the time, through whichever manager takes it; a write that none of them took was `lost`."""

    def __init__(self, managers: Managers) -> None:
        self._managers = managers
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self.taken = self.lost = 0

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()

    def _write(self) -> None:
        while not self._enough.wait(0.5):
            if any(self._managers.write(at) for at in HOSTS):
                self.taken += 1
            else:
                self.lost += 1


@pytest.mark.timeout(1800)
def test_three_managers_get_another_version_and_keep_their_quorum(tmp_path: Path) -> None:
    with bare_hosts(len(HOSTS), tmp_path) as desk:
        roles = dict.fromkeys(HOSTS[1:], ", role: manager")
        desk.write("machines.yaml", f"cluster: {{store: etcd}}\n{desk.hosts(**roles)}")
        code, said = desk.run("apply")
        assert code == 0, said
        managers = Managers(desk.lab)
        eventually(managers.all_serve, what="three managers")
        (old,) = versions(desk)
        members = {at: desk.lab.pids(at, "^[^ ]*etcd ") for at in HOSTS}
        with Writer(managers) as writer:
            code, said = desk.run("upgrade", program=newer(tmp_path / "newer"))
        assert code == 0, said
        assert versions(desk).isdisjoint({old})
        assert (writer.lost, writer.taken > 3) == (0, True)
        assert {at: desk.lab.pids(at, "^[^ ]*etcd ") for at in HOSTS} == members
        eventually(managers.all_serve, what="three managers of the new version")
