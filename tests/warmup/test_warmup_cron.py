"""Cron lines against an oracle that looks at every minute, in zones that change their clocks in every known way."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.warmup.cron_oracle import CHANGES, Oracle
from warmup.cron import Cron

HOUR = 3600.0
MINUTES = st.sampled_from(["0", "30", "15,45", "*/10", "*", "5-50/15", "59"])
HOURS = st.sampled_from(["0", "1", "2", "3", "8", "0-3", "*/2", "*", "1,2,3", "23"])
DAYS = st.sampled_from(["*", "*", "*", "1", "*/2", "28-31"])
MONTHS = st.sampled_from(["*", "*", "3,4,10", "1-6"])
WEEKDAYS = st.sampled_from(["*", "*", "mon-fri", "0", "sat,sun", "7"])
LINES = st.builds(lambda *fields: " ".join(fields), MINUTES, HOURS, DAYS, MONTHS, WEEKDAYS)


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(CHANGES), LINES, st.integers(-8 * 60, 8 * 60), st.integers(0, 59))
def test_times_around_a_change_of_the_clock(
    change: tuple[str, datetime], line: str, minutes: int, seconds: int
) -> None:
    zone, moment = change
    start = moment.timestamp() + minutes * 60 + seconds
    end = start + 12 * HOUR
    cron, found, instant = Cron(line, ZoneInfo(zone)), [], start
    while (following := cron.next_after(instant)) is not None and following <= end:
        found.append(following)
        instant = following
    assert found == Oracle(line, zone).between(start, end)


def test_daylight_saving_by_example() -> None:
    berlin = ZoneInfo("Europe/Berlin")

    def after(line: str, *moment: int) -> str:
        found = Cron(line, berlin).next_after(datetime(*moment, tzinfo=UTC).timestamp())  # type: ignore[misc, arg-type]
        assert found is not None
        return datetime.fromtimestamp(found, UTC).isoformat(timespec="minutes")

    assert after("30 2 * * *", 2024, 3, 31) == "2024-03-31T01:00+00:00", "skipped: the first minute after the gap"
    assert after("30 2 * * *", 2024, 10, 27) == "2024-10-27T00:30+00:00", "repeated: the first of the two"
    assert after("30 2 * * *", 2024, 10, 27, 0, 30) == "2024-10-28T01:30+00:00", "and not the second"
    assert after("*/30 * * * *", 2024, 10, 27, 0, 30) == "2024-10-27T01:00+00:00", "every half hour goes on"
    assert after("0 8 * * mon-fri", 2024, 3, 29, 12) == "2024-04-01T06:00+00:00"


def test_a_day_that_is_left_out_by_example() -> None:
    """Samoa went from Thursday the 29th to Saturday the 31st of December 2011, at midnight (10:00 UTC)."""
    apia = ZoneInfo("Pacific/Apia")
    thursday = datetime(2011, 12, 29, 20, tzinfo=UTC).timestamp()  # ten in the morning there
    midnight = datetime(2011, 12, 30, 10, tzinfo=UTC).timestamp()
    assert Cron("0 8 30 12 *", apia).next_after(thursday) == midnight, "skipped: the first minute after the gap"
    assert Cron("0 8 * * fri", apia).next_after(thursday) == midnight, "there was no Friday in that week"
    assert Cron("0 8 * * *", apia).next_after(midnight) == midnight + 8 * HOUR, "and Saturday's own time follows"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("0 8 * *", "4 fields"),
        ("0 0 8 * * *", "6 fields"),
        ("@daily", "1 fields"),
        ("60 8 * * *", "bad minute"),
        ("0 8 * * funday", "bad day-of-week"),
        ("0 0 31 2 *", "bad day-of-month"),
        ("", "0 fields"),
    ],
)
def test_what_is_no_cron_line(line: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Cron(line, ZoneInfo("UTC"))


def test_a_leap_day_comes_after_years() -> None:
    found = Cron("0 0 29 2 *", ZoneInfo("UTC")).next_after(datetime(2096, 3, 1, tzinfo=UTC).timestamp())
    assert found == datetime(2104, 2, 29, tzinfo=UTC).timestamp(), "2100 has no leap day"
