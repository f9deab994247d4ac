"""What the landing sensor decides, without Dagster: which days must be materialized again, given what has landed.

A day's mark says all that its partitions depend on: the files of each table that hold rows of it, the machine list in force,
and whether it is known to its end (labels wait for that). A day whose mark changed is dirty, and so are the days after it
that look back on it. What was seen is a mark per day, kept in a file named by its own hash; the sensor's cursor holds the
name, for a cursor of several kilobytes would be stored again with every tick.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pdm_assets.models.realised import ROLLING_DAYS
from pdm_assets.schemas.raw import FAILURES, MAINTENANCE, TELEMETRY

KNOWN = "known to its end"
MAX_DAYS_A_RUN = 400  # bounds what a run that dies has to repeat
KEPT_STATES = 20

Marks = dict[dt.date, dict[str, str]]  # day -> what it depends on -> fingerprint


@dataclass(frozen=True)
class Request:
    """A contiguous range of days to materialize, [first, last] both included."""

    first: dt.date
    last: dt.date
    fingerprint: str
    reason: str  # new, late or redelivered

    @property
    def days(self) -> int:
        """Length of the range."""
        return (self.last - self.first).days + 1


def mark_days(
    files: Mapping[str, Mapping[dt.date, str]],
    machine_lists: Mapping[dt.date, str],
    now: dt.datetime,
    is_partition: Callable[[dt.date], bool],
) -> Marks:
    """The mark of each day that has something to materialize.

    These are the days with rows, and the days between them without any: the outcomes of earlier observations became known on
    them. A day is known to its end once it is over and telemetry of it or of a later day has landed. Days that are no
    partition (yet) are left out, so a file of tomorrow is seen as new when tomorrow begins.

    Args:
        files: by table key, the fingerprint of the files that have rows of a day.
        machine_lists: by the day from which a list is in force, its fingerprint.
        now: the present, UTC.
        is_partition: whether a day is a partition.
    """
    landed = sorted({day for by_day in files.values() for day in by_day if is_partition(day)})
    if not landed:
        return {}
    heard_until = max((day for day in files.get(TELEMETRY.key, ()) if is_partition(day)), default=landed[0])
    marks: Marks = {}
    for day in (landed[0] + dt.timedelta(days=n) for n in range((landed[-1] - landed[0]).days + 1)):
        is_over = now >= dt.datetime.combine(day + dt.timedelta(days=1), dt.time(), dt.UTC)
        is_known = is_over and day <= heard_until
        has_rows = any(day in by_day for by_day in files.values())
        if is_partition(day) and (has_rows or is_known):
            in_force = max((since for since in machine_lists if since <= day), default=None)
            marks[day] = {
                **{key: by_day[day] for key, by_day in files.items() if day in by_day},
                # before the first list a run is refused: it must be asked for again, whatever day that list is of
                "machines": machine_lists[in_force] if in_force else "none in force" if machine_lists else "",
                KNOWN: str(is_known),
            }
    return marks


def next_request(now_marks: Marks, seen: Marks, lookback_days: int, horizon_days: int) -> tuple[Request, Marks] | None:
    """The earliest range of dirty days and what will have been seen when it is requested, or None if nothing changed.

    One range at a time: the days before it are then in the lake when a later one is computed.
    """
    changed = {day for day in now_marks.keys() | seen.keys() if now_marks.get(day) != seen.get(day)}
    if not changed:
        return None
    last_day = max(now_marks, default=max(changed))
    dirty: set[dt.date] = set()
    for day in changed:
        how_far = reach(now_marks.get(day, {}), seen.get(day, {}), lookback_days, horizon_days)
        end = last_day if how_far is None else min(day + dt.timedelta(days=how_far), max(last_day, day))
        dirty.update(day + dt.timedelta(days=n) for n in range((end - day).days + 1))
    first = last = min(dirty)
    while last + dt.timedelta(days=1) in dirty and (last - first).days + 1 < MAX_DAYS_A_RUN:
        last += dt.timedelta(days=1)
    will_be_seen = {day: mark for day, mark in seen.items() if not first <= day <= last}
    will_be_seen |= {day: mark for day, mark in now_marks.items() if first <= day <= last}
    reasons = {_reason(day, now_marks, seen) for day in changed if first <= day <= last}
    reason = next(r for r in ("late", "redelivered", "new", "over") if r in reasons)
    # Where the range was cut, days that are dirty only because of an earlier one must stay dirty.
    following = last + dt.timedelta(days=1)
    while following in dirty and following not in changed:
        will_be_seen.pop(following, None)
        following += dt.timedelta(days=1)
    content = json.dumps([[d.isoformat(), will_be_seen.get(d)] for d in sorted(dirty) if first <= d <= last])
    return Request(first, last, hashlib.sha256(content.encode()).hexdigest()[:12], reason), will_be_seen


def reach(now: Mapping[str, str], before: Mapping[str, str], lookback_days: int, horizon_days: int) -> int | None:
    """How many days after a changed day depend on what changed; None for all of them."""
    keys = {key for key in now.keys() | before.keys() if now.get(key) != before.get(key)}
    if keys == {KNOWN}:
        return 0
    if MAINTENANCE.key in keys:
        return None  # days since replacement look back without limit
    # A failure is in the 30 days of realised performance up to 29 days later, and makes an alarm of its own day right or wrong
    # in those that end a horizon after them.
    monitored = ROLLING_DAYS + horizon_days - 1 if FAILURES.key in keys else 0
    # Scores look back on what changed, and worklists on alerts of a horizon.
    return max(lookback_days + horizon_days, monitored)


def _reason(day: dt.date, now: Marks, seen: Marks) -> str:
    is_now, was = now.get(day, {}), seen.get(day, {})
    changed = {key for key in is_now.keys() | was.keys() if is_now.get(key) != was.get(key)}
    if changed == {KNOWN} and was:
        return "over"
    if changed & (was.keys() - {KNOWN}):
        return "redelivered"
    return "late" if any(later > day and _has_rows(mark) for later, mark in seen.items()) else "new"


def _has_rows(mark: Mapping[str, str]) -> bool:
    return bool(mark.keys() - {"machines", KNOWN})


class SeenStore:
    """Keeps what was seen in files named by their content's hash."""

    def __init__(self, folder: Path) -> None:
        """Nothing is created before `save`."""
        self.folder = folder

    def save(self, seen: Marks) -> str:
        """Write it down; the name to find it by."""
        text = json.dumps({day.isoformat(): mark for day, mark in sorted(seen.items())})
        name = _name_of(text)
        path = self.folder / f"{name}.json"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".part")
            partial.write_text(text)
            partial.replace(path)
            others = [p for p in self.folder.glob("*.json") if p != path]  # whatever the clock says, the newest stays
            for old in sorted(others, key=lambda p: p.stat().st_mtime)[: -KEPT_STATES + 1]:
                old.unlink(missing_ok=True)
        return name

    def load(self, name: str | None) -> Marks:
        """What was seen. Nothing, if the name is unknown or the file is damaged: days are then materialized once more."""
        try:
            text = (self.folder / f"{Path(name or '-').name}.json").read_text()
            if _name_of(text) != name:
                return {}
            return {dt.date.fromisoformat(day): dict(mark) for day, mark in json.loads(text).items()}
        except (OSError, ValueError, TypeError):
            return {}


def _name_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
