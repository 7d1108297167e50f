"""When a cron line comes round, by looking at every minute there is: slow, plain, and nothing of the code under test.

The rule is Debian cron's. A line with a fixed minute and hour comes at the first minute after a gap that swallows
its time, and not again when its time is repeated; one with a `*` in front of either comes at every matching reading.
"""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

CHANGES = [
    ("Europe/Berlin", datetime(2024, 3, 31, 1, tzinfo=UTC)),
    ("Europe/Berlin", datetime(2024, 10, 27, 1, tzinfo=UTC)),
    ("America/New_York", datetime(2024, 3, 10, 7, tzinfo=UTC)),
    ("America/New_York", datetime(2024, 11, 3, 6, tzinfo=UTC)),
    ("Europe/Dublin", datetime(2024, 10, 27, 1, tzinfo=UTC)),  # winter is what is saved there
    ("Australia/Lord_Howe", datetime(2024, 4, 6, 15, tzinfo=UTC)),  # half an hour back
    ("Australia/Lord_Howe", datetime(2024, 10, 5, 15, 30, tzinfo=UTC)),
    ("America/Caracas", datetime(2016, 5, 1, 7, tzinfo=UTC)),  # half an hour forth, for good
    ("America/Havana", datetime(2024, 3, 10, 5, tzinfo=UTC)),  # midnight does not exist
    ("America/Sao_Paulo", datetime(2018, 11, 4, 3, tzinfo=UTC)),  # nor here
    ("America/Sao_Paulo", datetime(2018, 2, 18, 2, tzinfo=UTC)),  # the hour before midnight comes twice
    ("America/Santiago", datetime(2024, 4, 7, 3, tzinfo=UTC)),
    ("Antarctica/Troll", datetime(2024, 3, 31, 1, tzinfo=UTC)),  # two hours forth
    ("Antarctica/Casey", datetime(2018, 3, 10, 17, tzinfo=UTC)),  # three hours back
    ("Africa/Casablanca", datetime(2024, 3, 10, 2, tzinfo=UTC)),  # an hour back for Ramadan
    ("Africa/Casablanca", datetime(2024, 4, 14, 2, tzinfo=UTC)),
    ("Pacific/Apia", datetime(2011, 12, 30, 10, tzinfo=UTC)),  # a day is left out
    ("Pacific/Kwajalein", datetime(1993, 8, 21, 12, tzinfo=UTC)),  # here, too
    ("Asia/Kathmandu", datetime(2024, 6, 1, tzinfo=UTC)),  # no change, odd offset
    ("UTC", datetime(2024, 2, 29, tzinfo=UTC)),
]
"""Zones, and moments at which their clocks are changed."""
MINUTE = timedelta(minutes=1)
_NAMES = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_LIMITS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


def _field(text: str, low: int, high: int) -> set[int]:
    found: set[int] = set()
    for number, name in enumerate(_NAMES):
        text = text.replace(name, str(number))
    for part in text.split(","):
        span, _, step = part.partition("/")
        if span == "*":
            values = range(low, high + 1)
        elif "-" in span:
            first, last = span.split("-")
            values = range(int(first), int(last) + 1)
        else:
            values = range(int(span), (high if step else int(span)) + 1)
        found |= set(values[:: int(step or 1)])
    return found


class Oracle:
    def __init__(self, line: str, zone: str) -> None:
        self.texts = line.split()
        self.fields = [_field(text, *limits) for text, limits in zip(self.texts, _LIMITS, strict=True)]
        self.zone = ZoneInfo(zone)
        self.fixed = not self.texts[0].startswith("*") and not self.texts[1].startswith("*")

    def reads(self, wall: datetime) -> bool:
        minute, hour, day, month, weekday = self.fields
        by_date = wall.day in day
        by_weekday = wall.isoweekday() % 7 in {number % 7 for number in weekday}
        starred = self.texts[2].startswith("*") or self.texts[4].startswith("*")
        dated = (by_date and by_weekday) if starred else (by_date or by_weekday)
        return wall.minute in minute and wall.hour in hour and wall.month in month and dated

    def between(self, start: float, end: float) -> list[float]:
        """All instants after `start` up to `end`."""
        found = []
        instant = datetime.fromtimestamp(start, UTC).replace(second=0, microsecond=0)
        before = instant.astimezone(self.zone).replace(tzinfo=None)
        while (instant := instant + MINUTE).timestamp() <= end:
            local = instant.astimezone(self.zone)
            wall = local.replace(tzinfo=None)
            if self._comes(local, wall, before) and instant.timestamp() > start:
                found.append(instant.timestamp())
            before = wall
        return found

    def _comes(self, local: datetime, wall: datetime, before: datetime) -> bool:
        if not self.fixed:
            return self.reads(wall)
        skipped = before + MINUTE
        while skipped < wall:
            if self.reads(skipped):
                return True
            skipped += MINUTE
        return local.fold == 0 and self.reads(wall)
