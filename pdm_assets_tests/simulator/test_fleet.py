"""The simulated fleet against the published figures of the data set."""

import datetime as dt
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from pyarrow import csv

from pdm_assets.simulator.fleet import COMPONENTS, LEVELS, SHIFTED_BY, SPREADS, live, readings
from pdm_assets.simulator.replay import FOLDERS, Replayer
from pdm_assets.simulator.writer import simulate

MACHINES, HOURS, SEED = 800, 365 * 24, 3
END = dt.datetime(2016, 1, 1, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def fleet():
    return [live(machine_id, hours=HOURS, seed=SEED) for machine_id in range(1, MACHINES + 1)]


def per_hundred(events):
    return {kind: 100 * count / MACHINES for kind, count in sorted(Counter(kind for _, kind in events).items())}


@pytest.mark.parametrize(
    ("what", "published"),
    [
        ("failures", {0: 192, 1: 259, 2: 131, 3: 179}),
        ("replacements", {0: 804, 1: 863, 2: 808, 3: 811}),
        ("errors", {0: 1010, 1: 988, 2: 838, 3: 727, 4: 356}),
    ],
)
def test_events_are_as_many_as_published(fleet, what, published):
    found = per_hundred([event for life in fleet for event in getattr(life, what)])
    assert found == pytest.approx(published, rel=0.1)


def test_history_before_telemetry_holds_the_latest_replacement_of_each_component(fleet):
    before = [(life.machine_id, component) for life in fleet for hour, component in life.replacements if hour < 0]
    assert len(before) == len(set(before))
    assert len(before) / MACHINES == pytest.approx(4, rel=0.1)
    assert min(hour for life in fleet for hour, _ in life.replacements) >= -214 * 24


def test_failures_stand_on_a_private_service_grid_at_six(fleet):
    for life in fleet[:200]:
        hours = [hour for hour, _ in life.failures]
        assert all(hour % 24 == 6 for hour in hours)
        assert all((later - earlier) % (15 * 24) == 0 for earlier, later in pairwise(hours))
    phases = {life.failures[0][0] // 24 % 15 for life in fleet if life.failures}
    assert phases == set(range(15))


def test_every_failure_is_repaired_within_its_hour(fleet):
    assert all(set(life.failures) <= set(life.replacements) for life in fleet)


def test_only_the_published_kinds_of_machine_lose_comp3_and_comp4(fleet):
    assert {life.model for life in fleet if any(c == 2 for _, c in life.failures)} == {0, 1}
    assert min(life.age for life in fleet if any(c == 3 for _, c in life.failures)) == 14


def test_two_components_fail_together_about_as_often_as_published(fleet):
    together = Counter((life.machine_id, hour) for life in fleet for hour, _ in life.failures)
    assert sum(count == 2 for count in together.values()) / len(together) == pytest.approx(0.058, abs=0.015)
    assert max(together.values()) == 2


def test_most_drifts_are_decoys(fleet):
    drifts = sum(1 for life in fleet for drift in life.drifts if 0 <= drift.start < HOURS)
    failing = sum(len(life.failures) for life in fleet)
    assert 0.69 <= 1 - failing / drifts <= 0.75


def warned(life, lookback=24):
    """Failures with an own error in (t - 24 h, t): the error is hourly news, so an alarm stands from it to the failure."""
    errors = {(hour, code) for hour, code in life.errors}
    return [
        any((failed - h, code) in errors for h in range(1, lookback + 1) for code in COMPONENTS[c].errors)
        for failed, c in life.failures
    ]


def test_the_own_error_rule_catches_what_it_catches_in_the_data_set(fleet):
    caught = [hit for life in fleet for hit in warned(life)]
    assert np.mean(caught) == pytest.approx(0.978, abs=0.05)


def test_the_own_error_rule_is_right_as_rarely_as_in_the_data_set(fleet):
    # an episode: alarms of a component whose gaps are at most 24 h, closed by a failure; each error raises one of 24 h
    true = false = 0
    for life in fleet:
        for c, component in enumerate(COMPONENTS):
            # comp2 has two own errors, which come together: one of them alone is background
            own = [{hour for hour, kind in life.errors if kind == code} for code in component.errors]
            alarms = sorted(set.intersection(*own))
            ends = [hour for hour, kind in life.failures if kind == c]
            episode_end = None
            for hour in alarms:
                if hour + 24 >= HOURS:
                    continue
                is_new = episode_end is None or hour > episode_end + 24 or any(episode_end - 24 < end <= hour for end in ends)
                episode_end = hour + 24
                if is_new:
                    hit = any(hour < end <= hour + 24 for end in ends)
                    true, false = true + hit, false + (not hit)
    assert true / (true + false) == pytest.approx(0.320, abs=0.05)


def test_own_error_and_shifted_channel_together_are_nearly_a_model(fleet):
    caught = true = false = failures = 0
    for life in fleet[:150]:
        values = readings(life, hours=HOURS, seed=SEED)
        mean = np.array([np.convolve(values[:, n], np.ones(12) / 12)[: len(values)] for n in range(4)])
        for c, component in enumerate(COMPONENTS):
            ends = [hour for hour, kind in life.failures if kind == c and hour >= 48]
            failures += len(ends)
            shifted = (mean[c] - LEVELS[c]) / component.step > 0.6
            alarms = [
                hour
                for hour, code in life.errors
                if code == component.errors[0] and 12 <= hour < HOURS - 24 and shifted[hour : hour + 24].any()
            ]
            caught += sum(any(end - 24 <= hour < end for hour in alarms) for end in ends)
            hits = [any(hour < end <= hour + 24 for end in ends) for hour in alarms]
            true, false = true + sum(hits), false + len(hits) - sum(hits)
    assert caught / failures == pytest.approx(0.93, abs=0.06)
    assert true / (true + false) == pytest.approx(0.89, abs=0.06)


def test_the_label_of_the_reference_sees_the_tell_tale_error_in_a_quarter_of_its_rows(fleet):
    # it marks the 8 rows of 12 h up to a failure; an error of the component counts in the 24 h up to a row (finding 1)
    seen = [
        any(row - 24 < hour <= row and code in COMPONENTS[c].errors for hour, code in life.errors)
        for life in fleet
        for failed, c in life.failures
        for row in range(failed - 84, failed + 1, 12)
    ]
    assert np.mean(seen) == pytest.approx(0.274, abs=0.03)


def test_readings_are_noise_about_their_level_with_a_step_before_a_failure(fleet):
    life = next(x for x in fleet if any(c == 0 and hour > 200 for hour, c in x.failures))
    failed = next(hour for hour, c in life.failures if c == 0 and hour > 200)
    drifting = np.zeros((HOURS, 4), bool)
    for drift in life.drifts:
        drifting[max(0, drift.start) : drift.start + drift.hours, drift.channel] = True
    values = readings(life, hours=HOURS, seed=SEED)
    for n in range(4):
        healthy = values[~drifting[:, n], n]
        assert healthy.mean() == pytest.approx(LEVELS[n], abs=SPREADS[n] / 20)
        assert healthy.std() == pytest.approx(SPREADS[n], rel=0.05)
        assert abs(np.corrcoef(healthy[1:], healthy[:-1])[0, 1]) < 0.05
    assert drifting[failed - 48 : failed, 0].all()
    assert values[failed - 48 : failed, 0].mean() == pytest.approx(LEVELS[0] + 20.5, abs=3 * 15 / 48**0.5)


def test_a_machine_has_the_same_life_in_any_fleet_and_a_longer_one_begins_the_same():
    short, long = live(7, hours=2400, seed=5), live(7, hours=4800, seed=5)
    assert [event for event in long.failures if event[0] < 2400] == short.failures
    assert [event for event in long.errors if event[0] < 2400] == short.errors
    assert [event for event in long.replacements if event[0] < 2400] == short.replacements
    assert np.array_equal(readings(long, hours=4800, seed=5)[:2400], readings(short, hours=2400, seed=5))
    assert live(7, hours=4800, seed=6).failures != long.failures


def test_the_harder_fleet_has_none_of_the_artefacts():
    harder = [live(machine_id, hours=HOURS, seed=SEED, harder=True) for machine_id in range(1, 301)]
    hours = Counter(hour % 24 for life in harder for hour, _ in life.failures)
    assert max(hours.values()) / sum(hours.values()) < 0.1
    assert np.mean([hit for life in harder for hit in warned(life, 48)]) == pytest.approx(0.7, abs=0.06)
    assert all(drift.is_ramp for life in harder for drift in life.drifts)


def test_the_five_files_hold_each_machine_hourly_and_sorted(tmp_path):
    done = []
    simulate(tmp_path, machines=45, days=3, end=END, seed=1, first_machine_id=5, progress=done.append)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(FOLDERS)
    header, _, _ = (tmp_path / "telemetry.csv").read_text().partition("\n")
    assert header == "datetime,machineID,volt,rotate,pressure,vibration"
    telemetry = csv.read_csv(tmp_path / "telemetry.csv").to_pandas()
    assert telemetry.groupby("machineID").size().to_dict() == dict.fromkeys(range(5, 50), 72)
    assert telemetry.equals(telemetry.sort_values(["machineID", "datetime"]))
    assert (telemetry["datetime"].min(), telemetry["datetime"].max()) == (
        dt.datetime(2015, 12, 29),
        dt.datetime(2015, 12, 31, 23),
    )
    assert max(done) <= 20
    assert sum(done) == 45


def test_the_same_machine_is_written_whatever_the_size_of_the_fleet(tmp_path):
    for name, size in (("small", 3), ("large", 30)):
        simulate(tmp_path / name, machines=size, days=2, end=END, seed=1)

    def of_machine_2(name):
        return [line for line in (tmp_path / name / "telemetry.csv").read_text().splitlines() if line.split(",")[1] == "2"]

    assert of_machine_2("small") == of_machine_2("large")
    assert len(of_machine_2("small")) == 48


def test_days_and_hours_replayed_are_the_rows_of_the_source(tmp_path):
    simulate(tmp_path / "source", machines=6, days=40, end=END, seed=2)
    first = dt.date(2015, 11, 22)
    replayer = Replayer(tmp_path / "source", tmp_path / "landing", first)
    for n in range(40):
        day = first + dt.timedelta(days=n)
        replayer.land_hours(day, 0, 23) if n == 7 else replayer.land_day(day)
    for name in ("telemetry.csv", "errors.csv", "failures.csv"):
        landed = [
            line for path in (tmp_path / "landing" / FOLDERS[name]).glob("*.csv") for line in path.read_text().splitlines()[1:]
        ]
        assert sorted(landed) == sorted((tmp_path / "source" / name).read_text().splitlines()[1:])
    assert len(list((tmp_path / "landing" / "telemetry").glob("*T*.csv"))) == 24
    assert not list((tmp_path / "landing").rglob(".*"))
    assert replayer.land_day(first) == []  # the same bytes again are no news


def test_a_shift_changes_nothing_before_its_day_and_then_a_level_and_a_way_of_failing():
    shift_hour, hours = 200 * 24, 400 * 24
    told = []
    for machine_id in range(1, 41):
        usual = live(machine_id, hours=hours, seed=SEED)
        shifted = live(machine_id, hours=hours, seed=SEED, shift_hour=shift_hour)
        assert shifted.failures == usual.failures
        assert shifted.replacements == usual.replacements
        assert {e for e in shifted.errors if e[0] < shift_hour - 24} == {e for e in usual.errors if e[0] < shift_hour - 24}
        before = readings(usual, hours=hours, seed=SEED)
        after = readings(shifted, hours=hours, seed=SEED, shift_hour=shift_hour)
        assert np.array_equal(before[: shift_hour - 48], after[: shift_hour - 48])
        assert np.allclose(after[shift_hour:, 2] - before[shift_hour:, 2], SHIFTED_BY)
        assert np.array_equal(before[:, [1, 3]], after[:, [1, 3]])
        for hour, component in shifted.failures:
            if component == 0 and hour >= shift_hour + 48:
                moved = np.median(after[hour - 48 : hour, 0]) - LEVELS[0]
                assert moved < -10
                told.append((hour - 24, 0) in shifted.errors)
    assert len(told) > 20
    assert np.mean(told) < 0.05  # by a background error at that very hour only


@pytest.mark.parametrize("machine_id", [96, 727, 5])  # the first two fail late and are shifted far
def test_a_longer_life_of_the_harder_fleet_begins_like_a_shorter_one(machine_id):
    short = live(machine_id, hours=HOURS, seed=SEED, harder=True)
    long = live(machine_id, hours=HOURS + 60 * 24, seed=SEED, harder=True)
    assert set(short.drifts) >= {drift for drift in long.drifts if drift.start < HOURS}
    assert short.errors == [error for error in long.errors if error[0] < HOURS]


def test_a_replay_lands_the_list_of_machines_once(tmp_path):
    simulate(tmp_path / "fleet", machines=2, days=1, end=END, seed=SEED)
    replayer = Replayer(tmp_path / "fleet", tmp_path / "landing")
    (landed,) = replayer.land_machines()
    assert landed.read_bytes() == (tmp_path / "fleet" / "machines.csv").read_bytes()
    assert replayer.land_machines() == []
