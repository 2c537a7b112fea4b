"""Schedule: when the next backup is due. Pure.

A schedule is how long lies between two ("6h", "1h30m"), or cron's five fields ("0 3 * * *"), in UTC.
"""

from __future__ import annotations

import datetime

from cronsim import CronSim, CronSimError

from shoal import defaults
from shoal.duration import duration
from shoal.errors import InvalidArgument
from shoal.model.cluster import BackupStatus

_LEAST_NS = 60 * defaults.SECOND_NS
# After a failure, the next try is not put off until the schedule's next time.
RETRY_NS = 600 * defaults.SECOND_NS


def check(schedule: str) -> None:
    """Raises InvalidArgument for what is no schedule."""
    next_ns(schedule, 0)


def next_ns(schedule: str, after_ns: int) -> int:
    """The first time above `after_ns` that `schedule` names."""
    if " " not in schedule.strip():
        every_ns = duration(schedule)
        if every_ns < _LEAST_NS:
            raise InvalidArgument(f"a backup every {schedule} is too often", hint="1m is the least")
        return after_ns + every_ns
    after = datetime.datetime.fromtimestamp(after_ns // defaults.SECOND_NS, tz=datetime.UTC)
    try:
        at = next(CronSim(schedule, after))
    except CronSimError as error:
        raise InvalidArgument(
            f"invalid backup schedule {schedule!r}: {error}", hint='write it as "6h", or as cron\'s "0 3 * * *"'
        ) from error
    except StopIteration as error:
        raise InvalidArgument(f"backup schedule {schedule!r} names no time that ever comes") from error
    return int(at.timestamp()) * defaults.SECOND_NS


def due_ns(schedule: str, status: BackupStatus) -> int:
    """When a backup is due, after what became of the last one. The first one is due at once: that shows whether it can
    be done."""
    if status.error:
        return min(next_ns(schedule, status.failed_at_ns), status.failed_at_ns + RETRY_NS)
    return next_ns(schedule, status.taken_at_ns) if status.taken_at_ns else 0
