"""When a cron line comes round, as an instant, in zones whose clocks are put forward and back.

The library (cronsim) knows the language and walks the calendar. What it does with aware times across a change of the
clock is right for whole-hour changes only, so it is given plain wall-clock times here and they are turned into instants
by the rule of Debian's cron. A line that names its minute and hour comes once a day: at the first instant after the gap
when its time is skipped, at the first of the two when its time is repeated. A line whose minute or hour begins with `*`
comes at every matching reading of the clock: twice when the hour is repeated, not at all when it is skipped.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import cast
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

FIELDS = 5
_LONGEST_FOLD = timedelta(hours=3)
"""More than any zone has put its clock back since 1970 other than by moving across the date line."""
_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Cron:
    """A line of five fields (minute, hour, day of month, month, day of week) and the zone whose clock it means.

    Raises:
        ValueError: when the line is not one, or describes a date that never comes.
    """

    line: str
    zone: ZoneInfo

    def __post_init__(self) -> None:
        if len(self.line.split()) != FIELDS:
            raise ValueError(f"has {len(self.line.split())} fields, not {FIELDS}")
        try:
            walk = CronSim(self.line, datetime(2000, 1, 1))  # noqa: DTZ001 - a wall-clock time
        except CronSimError as error:
            raise ValueError(str(error)[:1].lower() + str(error)[1:]) from error
        if next(walk, None) is None:
            raise ValueError("describes a date that never comes")

    def next_after(self, instant: float) -> float | None:
        """The first time strictly after `instant`; both in seconds since the epoch. None: never within fifty years."""
        return _next_after(self.line, self.zone, instant)


@functools.lru_cache(maxsize=256)
def _next_after(line: str, zone: ZoneInfo, instant: float) -> float | None:
    start = datetime.fromtimestamp(instant, UTC)
    wall = start.astimezone(zone).replace(tzinfo=None)
    minute, hour = line.split()[:2]
    if minute.startswith("*") or hour.startswith("*"):
        return _first_reading(line, zone, wall - _LONGEST_FOLD, start)
    for named in _walk(line, wall):
        found = _after_gap(named, zone)
        if found > start:
            return found.timestamp()
    return None


def _first_reading(line: str, zone: ZoneInfo, wall: datetime, start: datetime) -> float | None:
    """The earliest instant after `start` at which the zone's clock reads a matching time."""
    best: datetime | None = None
    for named in _walk(line, wall):
        first = named.replace(tzinfo=zone).astimezone(UTC)
        if best is not None and first > best:
            return best.timestamp()
        for fold in (0, 1):
            reading = named.replace(tzinfo=zone, fold=fold).astimezone(UTC)
            real = reading.astimezone(zone).replace(tzinfo=None) == named
            if real and reading > start and (best is None or reading < best):
                best = reading
    return best.timestamp() if best else None


def _after_gap(named: datetime, zone: ZoneInfo) -> datetime:
    """The instant at which the clock first reads `named`, or the end of the gap that swallows it."""
    while True:
        reading = named.replace(tzinfo=zone).astimezone(UTC)
        if reading.astimezone(zone).replace(tzinfo=None) == named:
            return reading
        named = named.replace(second=0) + _MINUTE


def _walk(line: str, wall: datetime) -> Iterator[datetime]:
    return cast("Iterator[datetime]", CronSim(line, wall))
