"""What the landing sensor decides, case by case."""

import datetime as dt
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdm_assets.automation import plan
from pdm_assets.automation.plan import SeenStore, mark_days, next_request
from pdm_assets_tests.builders import day, utc

LATER = utc("2016-01-01 00:00")
TELEMETRY, ERRORS, MAINTENANCE, FAILURES = "raw/telemetry", "raw/errors", "raw/maintenance", "raw/failures"


def marks(telemetry, *, errors=None, maintenance=None, failures=None, lists=None, now=LATER, partitions=None):
    return mark_days(
        {
            TELEMETRY: {day(d): f for d, f in telemetry.items()},
            ERRORS: {day(d): f for d, f in (errors or {}).items()},
            MAINTENANCE: {day(d): f for d, f in (maintenance or {}).items()},
            FAILURES: {day(d): f for d, f in (failures or {}).items()},
        },
        {day(d): f for d, f in (lists or {"2015-01-01": "fleet"}).items()},
        now,
        is_partition=partitions or (lambda d: day("2015-01-01") <= d <= now.date()),
    )


def request(now_marks, seen):
    found = next_request(now_marks, seen, lookback_days=2, horizon_days=2)
    return found and (found[0].first.isoformat(), found[0].last.isoformat(), found[0].reason)


def drain(now_marks, seen):
    """All requests one after another until nothing is left."""
    ranges = []
    while (found := next_request(now_marks, seen, lookback_days=2, horizon_days=2)) is not None:
        ranges.append((found[0].first.isoformat(), found[0].last.isoformat()))
        seen = found[1]
        assert len(ranges) < 20, "it never comes to rest"
    return ranges


def whole_january():
    return {f"2015-01-{n:02d}": "a" for n in range(1, 21)}


def test_the_first_look_takes_everything_in_one_run():
    assert request(marks(whole_january()), {}) == ("2015-01-01", "2015-01-20", "new")


def test_nothing_new_is_no_request():
    now = marks(whole_january())
    assert drain(now, {}) == [("2015-01-01", "2015-01-20")]
    assert next_request(now, now, 2, 2) is None


def test_a_new_day_is_one_day():
    before = marks(whole_january(), now=utc("2015-01-21 00:10"))
    after = marks({**whole_january(), "2015-01-21": "a"}, now=utc("2015-01-21 00:10"))
    assert request(after, before) == ("2015-01-21", "2015-01-21", "new")


def test_a_day_that_ended_is_taken_once_more_for_its_labels():
    landed = {**whole_january(), "2015-01-21": "a"}
    before, after = marks(landed, now=utc("2015-01-21 23:59")), marks(landed, now=utc("2015-01-22 00:00"))
    assert request(after, before) == ("2015-01-21", "2015-01-21", "over")


def test_days_without_a_file_are_taken_when_telemetry_of_a_later_day_has_landed():
    # no weekend shift: that nothing failed on the 21st and 22nd is known when the 23rd has landed
    before = marks(whole_january())
    monday = {**whole_january(), "2015-01-23": "a"}
    assert request(marks(monday), before) == ("2015-01-21", "2015-01-23", "new")


def test_a_failure_report_alone_says_nothing_of_the_days_before_it():
    seen = marks(whole_january())
    now = marks(whole_january(), maintenance={"2015-01-23": "m"})
    assert drain(now, seen) == [("2015-01-23", "2015-01-23")]


def test_late_data_takes_the_days_that_look_back_on_it_and_those_whose_worklists_hold_their_alerts():
    # scores of the 10th to the 12th change, and an alert of the 12th may be open until the 14th
    landed = whole_january()
    seen = marks({d: f for d, f in landed.items() if d != "2015-01-10"})
    assert drain(marks(landed), seen) == [("2015-01-10", "2015-01-14")]


def test_a_redelivered_file_takes_only_its_days():
    seen = marks(whole_january())
    assert request(marks({**whole_january(), "2015-01-05": "b"}), seen) == (
        "2015-01-05",
        "2015-01-09",
        "redelivered",
    )


def test_the_same_bytes_delivered_again_at_another_time_have_another_request_than_before():
    first, second = marks({"2015-01-05": "at noon"}), marks({"2015-01-05": "at one"})
    keys = {next_request(now, {}, 2, 2)[0].fingerprint for now in (first, second)}
    assert len(keys) == 2


def test_late_errors_reach_as_far_as_late_telemetry():
    seen = marks(whole_january())
    assert drain(marks(whole_january(), errors={"2015-01-10": "e"}), seen) == [("2015-01-10", "2015-01-14")]


def test_late_maintenance_reaches_all_days_after_it():
    seen = marks(whole_january())
    now = marks(whole_january(), maintenance={"2015-01-05": "m"})
    assert drain(now, seen) == [("2015-01-05", "2015-01-20")]


def test_a_late_failure_reaches_the_days_whose_30_days_of_realised_performance_hold_it():
    landed = {**whole_january(), **{f"2015-02-{n:02d}": "a" for n in range(1, 29)}}
    landed |= {f"2015-01-{n}": "a" for n in range(21, 32)}
    # alarms of the 5th are judged in the windows up to the 5th + 31, whose alarms end two days before them
    assert drain(marks(landed, failures={"2015-01-05": "f"}), marks(landed)) == [("2015-01-05", "2015-02-05")]


def test_a_withdrawn_file_takes_its_days_too():
    seen = marks(whole_january())
    assert request(marks({d: f for d, f in whole_january().items() if d != "2015-01-20"}), seen)[0] == "2015-01-20"


def test_a_new_fleet_list_takes_the_days_it_is_in_force():
    seen = marks(whole_january())
    now = marks(whole_january(), lists={"2015-01-01": "fleet", "2015-01-15": "larger fleet"})
    assert drain(now, seen) == [("2015-01-15", "2015-01-20")]


def test_distant_days_are_runs_of_their_own_the_earlier_first():
    seen = marks(whole_january())
    now = marks({**whole_january(), "2015-01-03": "b", "2015-01-15": "b"})
    assert drain(now, seen) == [("2015-01-03", "2015-01-07"), ("2015-01-15", "2015-01-19")]


def test_a_day_that_is_no_partition_yet_waits_until_it_is_one():
    landed = {"2015-01-05": "a", "2015-01-06": "a"}
    early = marks(landed, now=utc("2015-01-05 12:00"))
    assert request(early, {}) == ("2015-01-05", "2015-01-05", "new")
    later = marks(landed, now=utc("2015-01-06 00:00"))
    assert drain(later, early) == [("2015-01-05", "2015-01-06")]


def test_days_before_the_first_partition_are_left_alone():
    assert request(marks({"2014-12-31": "a", "2015-01-01": "a"}, now=utc("2015-01-02 00:00")), {})[0] == "2015-01-01"


def test_a_long_load_is_cut_and_nothing_is_left_out(monkeypatch):
    monkeypatch.setattr(plan, "MAX_DAYS_A_RUN", 7)
    ranges = drain(marks(whole_january()), {})
    covered = [n for first, last in ranges for n in range(day(first).toordinal(), day(last).toordinal() + 1)]
    assert all((day(last) - day(first)).days < 7 for first, last in ranges)
    assert set(covered) == set(range(day("2015-01-01").toordinal(), day("2015-01-21").toordinal()))


@given(
    before=st.dictionaries(st.integers(0, 12), st.sampled_from("ab")),
    after=st.dictionaries(st.integers(0, 12), st.sampled_from("ab")),
    limit=st.integers(1, 5),
)
def test_every_changed_day_and_its_lookback_is_requested_whatever_landed(before, after, limit):
    def at(landed):
        return marks({(day("2015-01-01") + dt.timedelta(days=n)).isoformat(): f for n, f in landed.items()})

    seen, now = at(before), at(after)
    changed = {d for d in seen.keys() | now.keys() if seen.get(d) != now.get(d)}
    owed = {d + dt.timedelta(days=n) for d in changed for n in range(5) if d + dt.timedelta(days=n) in now} | changed
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "MAX_DAYS_A_RUN", limit)
        asked = {
            dt.date.fromordinal(n)
            for first, last in drain_many(now, seen)
            for n in range(first.toordinal(), last.toordinal() + 1)
        }
    assert owed <= asked


def drain_many(now, seen):
    ranges = []
    while (found := next_request(now, seen, 2, 2)) is not None:
        ranges.append((found[0].first, found[0].last))
        seen = found[1]
        assert len(ranges) < 100, "it never comes to rest"
    return ranges


def test_what_was_seen_is_found_again(tmp_path):
    store = SeenStore(tmp_path)
    seen = marks(whole_january())
    assert store.load(store.save(seen)) == seen


def test_what_was_seen_last_is_kept_whatever_the_clock_says(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "KEPT_STATES", 2)
    store = SeenStore(tmp_path)
    for n in range(1, 4):
        path = tmp_path / f"{store.save(marks(whole_january(), lists={'2015-01-01': str(n)}))}.json"
        os.utime(path, (time.time() + 86400 + n,) * 2)  # the clock is set back after them
    seen = marks(whole_january())
    assert store.load(store.save(seen)) == seen
    assert len(list(tmp_path.glob("*.json"))) == 2


@pytest.mark.parametrize("name", [None, "", "no-such", "../../etc/passwd", "\0"])
def test_an_unknown_name_means_nothing_was_seen(tmp_path, name):
    assert SeenStore(tmp_path).load(name) == {}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"x": {}}', '{"2015-01-01": 3}', "\xff"])
def test_a_damaged_file_means_nothing_was_seen(tmp_path, content):
    store = SeenStore(tmp_path)
    name = store.save(marks(whole_january()))
    (tmp_path / f"{name}.json").write_text(content, encoding="latin-1")
    assert store.load(name) == {}
