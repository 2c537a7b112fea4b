"""The register of this host's containers: by id, by name, by a unique prefix, and by what they use."""

from __future__ import annotations

from collections.abc import Iterator

from agent.container.held import Held
from shoal import ids
from shoal.errors import Conflict, NotFound
from shoal.model.container import MountType


class Register:
    """A name is taken from `reserve` on, before its container is there, until `drop`."""

    def __init__(self) -> None:
        self._by_id: dict[str, Held] = {}
        self._names: dict[str, str] = {}

    def __iter__(self) -> Iterator[Held]:
        return iter(tuple(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._names)

    def reserve(self, name: str, container_id: str) -> None:
        """Raises Conflict in docker's words if the name is taken."""
        owner = self._names.setdefault(name, container_id)
        if owner != container_id:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{owner}".'
                " You have to remove (or rename) that container to be able to reuse that name."
            )

    def release(self, name: str, container_id: str) -> None:
        if self._names.get(name) == container_id:
            del self._names[name]

    def add(self, held: Held) -> None:
        """Its name must be reserved."""
        self._by_id[held.id] = held

    def drop(self, held: Held) -> None:
        self._by_id.pop(held.id, None)
        self.release(held.name, held.id)

    def named(self, name: str) -> Held | None:
        """The container of exactly this name, once it is there."""
        return self._by_id.get(self._names.get(name, ""))

    def find(self, reference: str) -> Held:
        """By id, else name, else unique prefix of an id. Raises NotFound ("No such container: x") and Conflict."""
        word = reference.removeprefix("/")
        held = self._by_id.get(word) or self.named(word)
        if held is None:
            try:
                held = self._by_id[ids.resolve(word, self._by_id, kind="container")]
            except NotFound:
                raise NotFound(f"No such container: {reference}") from None
        return held

    def volume_users(self, name: str, *, but: str = "", alive: bool = False) -> list[str]:
        """Ids of the containers that mount the volume, in any state or `alive`; not that of `but`."""
        return [
            held.id
            for held in self
            if held.id != but
            and (held.alive or not alive)
            and any(each.type == MountType.VOLUME and each.source == name for each in held.record.container.mounts)
        ]

    def image_users(self, image_id: str) -> list[tuple[str, str, bool]]:
        """(id, name, running) of the containers made from the image."""
        return [(held.id, held.name, held.busy) for held in self if held.record.container.image_id == image_id]
