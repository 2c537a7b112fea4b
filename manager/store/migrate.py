"""Migrate: what one store holds, copied into another, while nobody writes to either.

The source is only read. The target says that it is not whole until every record was written and read back, and is
nobody's truth until a manager takes it over (`backup.take_over`): whatever dies at any moment, the source goes on.
Which of the two a manager is started on is the agent's to remember.
"""

from __future__ import annotations

from manager.store import backup
from manager.store.base import Store
from manager.store.records import lasting
from shoal.backup import Item


async def migrate(source: Store, target: Store) -> int:
    """How many records were copied. Raises Conflict when `target` holds anything, Unavailable when it does not keep
    what is written."""
    snapshot = await source.read("/")
    items = [Item(record.key, record.value) for record in snapshot.records if lasting(record.key)]
    await backup.begin(target, what="a migration")
    await backup.fill(target, items)
    await backup.compare(target, items)
    await backup.finish(target)
    return len(items)
