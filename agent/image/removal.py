"""What `rmi` and `image prune` do: docker's rules, decided apart from doing.

A name given: that name goes, and with the last name the image. An id given: all names go, if they belong to one
repository. A container that uses the image holds it: a stopped one until `-f`, a running one always; what a
container still uses stays on disk as a nameless image, so that the container can start again. So does what other images
were committed on, until the last of these goes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from agent.image.catalog import Catalog, Record
from agent.image.gc import needed
from agent.image.snapshot import name_of
from shoal import ids
from shoal import reference as references
from shoal.errors import Conflict

# (container id, name, running)
User = tuple[str, str, bool]
# Those that were made from an image id.
Users = Callable[[str], Sequence[User]]


def nobody(_: str) -> Sequence[User]:
    return ()


class Removal(msgspec.Struct, frozen=True):
    """Canonical names to take away, whether the image itself goes, and which ids of parents go with it."""

    untag: tuple[str, ...] = ()
    delete: bool = False
    parents: tuple[str, ...] = ()


class Removed(msgspec.Struct, frozen=True):
    """What went: names as people write them, then the image's id and the chain ids of layers that nothing needs any
    more; and how much disk that frees."""

    untagged: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    freed_bytes: int = 0


def outcome(before: Catalog, record: Record, decided: Removal) -> tuple[Removed, Catalog]:
    """What it comes to when `decided` is done, and the catalog afterwards."""
    untagged = tuple(references.parse(name).familiar for name in decided.untag)
    after = before.without_names(decided.untag)
    deleted: list[str] = []
    freed_bytes = 0
    for image_id in (record.id, *decided.parents) if decided.delete else ():
        after, image = after.without_image(image_id), before.images[image_id]
        kept = needed(after)[1]
        deleted.append(image_id)
        for chain_id, size_bytes in zip(reversed(image.chain_ids), reversed(image.layer_sizes), strict=True):
            if name_of(chain_id) not in kept and chain_id not in deleted:
                deleted.append(chain_id)
                freed_bytes += size_bytes
    return Removed(untagged, tuple(deleted), freed_bytes), after


def with_parents(catalog: Catalog, record: Record, decided: Removal, *, users: Users) -> Removal:
    """Parents go with their last child, where nobody calls them anything or uses them."""
    parents: list[str] = []
    here = record
    while decided.delete and (parent := catalog.images.get(here.parent)) is not None:
        if catalog.names_of(parent.id) or users(parent.id) or catalog.children(parent.id) != [here.id]:
            break
        parents.append(parent.id)
        here = parent
    return msgspec.structs.replace(decided, parents=tuple(parents))


def unused(catalog: Catalog, *, all: bool, users: Users) -> list[Record]:
    """Images that no container was made from: those without a tag, or with `all` whatever they are called; none that is
    there for its children alone."""
    found = []
    for record in catalog.images.values():
        tagged = any(not references.parse(name).digest for name in catalog.names_of(record.id))
        if (all or not tagged) and not catalog.intermediate(record.id) and not users(record.id):
            found.append(record)
    return found


def whole(catalog: Catalog, record: Record, *, users: Users) -> Removal:
    """All names of an image that nobody uses, and the image with them where it has no children."""
    decided = Removal(tuple(catalog.names_of(record.id)), delete=not catalog.children(record.id))
    return with_parents(catalog, record, decided, users=users)


def decide(catalog: Catalog, record: Record, *, named: str, force: bool, users: Sequence[User]) -> Removal:
    """`named` is the canonical name that the user gave, empty when it was an id; `users` the containers made from the
    image. Raises Conflict in docker's words."""
    names = catalog.names_of(record.id)
    if named:
        decided = _by_name(record, names, named=named, force=force, users=users)
        return msgspec.structs.replace(decided, delete=decided.delete and not catalog.children(record.id))
    if catalog.children(record.id):
        raise _refusal(record, "cannot be forced", "image has dependent child images")
    if not force and not _one_repository(names):
        raise _refusal(record, "must be forced", "image is referenced in multiple repositories")
    _check_users(record, names, force=force, users=users)
    return Removal(tuple(names), delete=not users)


def _by_name(record: Record, names: list[str], *, named: str, force: bool, users: Sequence[User]) -> Removal:
    if users and not force and _one_repository(names):
        container_id = users[0][0]
        raise Conflict(
            f'conflict: unable to remove repository reference "{references.parse(named).familiar}" (must force) - '
            f"container {ids.short(container_id)} is using its referenced image {ids.short(record.id)}",
            hint="remove the container first, or add -f",
        )
    untag = [named]
    repository, tagged = references.parse(named).name, not references.parse(named).digest
    rest = [name for name in names if name != named]
    if tagged and not any(_is_tag_of(name, repository) for name in rest):
        # The last tag of a repository takes its names by digest along.
        untag += [name for name in rest if references.parse(name).name == repository]
    gone = len(untag) == len(names)
    return Removal(tuple(untag), delete=gone and not users)


def _check_users(record: Record, names: list[str], *, force: bool, users: Sequence[User]) -> None:
    for container_id, _, running in users:
        if running:
            why = f"image is being used by running container {ids.short(container_id)}"
            raise _refusal(record, "cannot be forced", why)
    for container_id, _, _ in users:
        why = f"image is being used by stopped container {ids.short(container_id)}"
        if not force:
            raise _refusal(record, "must be forced", why)
        if not names:
            raise _refusal(record, "cannot be forced", why)


def _refusal(record: Record, force: str, why: str) -> Conflict:
    return Conflict(f"conflict: unable to delete {ids.short(record.id)} ({force}) - {why}")


def _one_repository(names: list[str]) -> bool:
    """True for at most one tag, with names by digest only of the same repository."""
    if len(names) <= 1:
        return True
    parsed = [references.parse(name) for name in names]
    tags = [each for each in parsed if not each.digest]
    return len(tags) <= 1 and len({each.name for each in parsed}) == 1


def _is_tag_of(name: str, repository: str) -> bool:
    parsed = references.parse(name)
    return parsed.name == repository and not parsed.digest
