"""Calendar months: the partitions of downloads, and how long ERA5 of a month stays preliminary."""

from __future__ import annotations

import calendar
from datetime import date, timedelta

PRELIMINARY_DAYS = 120
"""Days after the end of a month until its final ERA5 has surely replaced the preliminary ERA5T. The Climate Data
Store needs 60 to 90 of them; copies of it, such as ARCO-ERA5, have been seen to need up to 120."""


def month_spans(start: date, end: date) -> list[tuple[date, date]]:
    """Cut a period into months: `(Jan 10, Feb 3) => [(Jan 10, Jan 31), (Feb 1, Feb 3)]`."""
    spans = []
    first = start
    while first <= end:
        last = min(month_end(first), end)
        spans.append((first, last))
        first = last + timedelta(days=1)
    return spans


def day_spans(start: date, end: date) -> list[tuple[date, date]]:
    """Cut a period into days, both ends of a span being the same day."""
    days = (start + timedelta(days=n) for n in range((end - start).days + 1))
    return [(day, day) for day in days]


def month_end(day: date) -> date:
    """Return the last day of a day's month."""
    return day.replace(day=calendar.monthrange(day.year, day.month)[1])


def is_preliminary(day: date, today: date) -> bool:
    """Tell whether data up to a day may still be incomplete or ERA5T, so that it is worth fetching again later.

    Final ERA5 comes by whole months, so all days of a month become final together.
    """
    return today - month_end(day) < timedelta(days=PRELIMINARY_DAYS)
