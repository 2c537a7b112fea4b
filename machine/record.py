"""Records: what this computer knows of each machine, one file per machine, written before anything is done to it.

So a run that was killed leaves which step it was at, and `rm` always has something to remove. The host's facts, not the
record, decide what is to do. A run holds the machines that it changes, against others on this computer; those of other
computers meet at the hosts, which have a lock of their own (`transport/shell`).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from machine.model import Machine
from shoal.errors import Conflict, InvalidArgument, NotFound
from shoal.files import read_optional, write_atomic


class Record(msgspec.Struct, frozen=True):
    """`options` are what the driver was told, `previous` is the version before, for `rollback`; `doing` is the step
    under way, `failed` why the last run ended before all was done: both are empty otherwise."""

    machine: Machine
    driver: str = "ssh"
    options: dict[str, str] = {}
    created_at_ns: int = 0
    version: str = ""
    previous: str = ""
    node_id: str = ""
    cluster_id: str = ""
    manager: str = ""
    doing: str = ""
    failed: str = ""

    @property
    def unfinished(self) -> bool:
        return bool(self.doing or self.failed)


class Records:
    """The folder of all machines of a user, with known_hosts, journal and artefacts beside their records."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of_user(cls, folder: str = "") -> Records:
        """The folder that was given, or MACHINE_STORAGE_PATH, or one of the user's data."""
        chosen = folder or os.environ.get("MACHINE_STORAGE_PATH", "")
        base = os.environ.get("XDG_DATA_HOME", "") or str(Path("~/.local/share").expanduser())
        return cls(Path(chosen) if chosen else Path(base, "shoal", "machine"))

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def journal(self) -> Path:
        return self.folder / "journal.jsonl"

    @property
    def artefacts(self) -> Path:
        return self.folder / "artefacts"

    def all(self) -> list[Record]:
        """By name."""
        names = [path.name.removesuffix(".json") for path in (self.folder / "machines").glob("*.json")]
        return [self.get(name) for name in sorted(names)]

    def find(self, name: str) -> Record | None:
        data = read_optional(self._path(name))
        if data is None:
            return None
        try:
            return msgspec.json.decode(data, type=Record)
        except msgspec.MsgspecError as error:
            raise InvalidArgument(f"{self._path(name)} is no record of a machine: {error}") from error

    def get(self, name: str) -> Record:
        record = self.find(name)
        if record is None:
            raise NotFound(f'machine "{name}" does not exist', hint="'shoal machine ls' shows which do")
        return record

    def save(self, record: Record) -> None:
        write_atomic(self._path(record.machine.name), msgspec.json.format(msgspec.json.encode(record)))

    def change(self, name: str, **values: object) -> Record:
        changed = msgspec.structs.replace(self.get(name), **values)
        self.save(changed)
        return changed

    def remove(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)

    def named(self, names: Iterable[str]) -> list[Record]:
        """Those records, in that order; all of them for no name."""
        return [self.get(name) for name in names] or self.all()

    @contextlib.contextmanager
    def held(self, names: Iterable[str], owner: str) -> Iterator[None]:
        """Keep other runs away from these machines meanwhile: the kernel gives them back, whoever is killed (flock(2)).
        Raises Conflict at once, with who has one of them; then none is held."""
        with contextlib.ExitStack() as stack:
            for name in sorted(names):
                path = self.folder / "locks" / name
                path.parent.mkdir(parents=True, exist_ok=True)
                file = stack.enter_context(path.open("a+"))
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    file.seek(0)
                    holder = file.read() or "another run"
                    raise Conflict(f"{name} is worked on by {holder}", hint="wait for its end") from None
                file.truncate(0)
                file.write(owner)
                file.flush()
            yield

    def _path(self, name: str) -> Path:
        return self.folder / "machines" / f"{name}.json"
