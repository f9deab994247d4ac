import datetime as dt
import decimal
import statistics

import pytest

from pdm_assets.schemas.features import OBSERVATIONS
from pdm_assets.schemas.raw import COMPONENTS, ERROR_CODES, ERRORS, MACHINES, MAINTENANCE, TELEMETRY
from pdm_assets.transforms.features import observation_hours, observe_machines, within_reach
from pdm_assets_tests.builders import day, errors, frame, machines, maintenance, telemetry, utc

HOUR = dt.timedelta(hours=1)


def observe(spark, readings, *, on=((1, "2015-01-03"),), errors_=(), maintenance_=(), cadence_hours=12):
    frame = observe_machines(
        machines(spark, on),
        telemetry(spark, readings),
        errors(spark, errors_),
        maintenance(spark, maintenance_),
        cadence_hours=cadence_hours,
    )
    assert tuple(frame.columns) == OBSERVATIONS.column_names
    return {(row["machine_id"], row["observed_at"].strftime("%d %H")): row.asDict() for row in frame.collect()}


def hourly(machine, first, last, value=10.0):
    at, out = utc(first), []
    while at <= utc(last):
        out.append((machine, at.strftime("%Y-%m-%d %H:%M"), value))
        at += HOUR
    return out


def test_a_window_leaves_out_its_first_instant_and_takes_its_last(spark):
    # 12 h before 03 06:00 is 02 18:00, which belongs to the observation before; 06:00 itself counts.
    readings = [(1, "2015-01-02 18:00", 1000.0), (1, "2015-01-02 18:01", 1.0), (1, "2015-01-03 06:00", 3.0)]
    row = observe(spark, readings)[(1, "03 06")]
    assert row["volt_mean_12h"] == 2.0
    assert row["volt_std_12h"] == pytest.approx(2**0.5, rel=1e-15)
    assert row["volt_mean_24h"] == pytest.approx((1000 + 1 + 3) / 3, rel=1e-15)
    assert row["readings_36h"] == 3


def test_within_reach_of_a_day_is_what_its_first_observation_looks_back_on_up_to_its_last(spark):
    # observed at 06:00 and 18:00 of the 3rd; 36 h before 06:00 is 18:00 of the 1st
    at = ["2015-01-01 18:00", "2015-01-01 18:01", "2015-01-03 18:00", "2015-01-03 18:01"]
    readings = telemetry(spark, [(1, time, 1.0) for time in at])
    seen = within_reach(readings, day("2015-01-03"), day("2015-01-04"), 12)
    assert sorted(row["observed_at"].strftime("%Y-%m-%d %H:%M") for row in seen.collect()) == at[1:3]


@pytest.mark.parametrize("cadence_hours", [1, 3, 6, 12, 24])
def test_what_is_out_of_reach_changes_no_observation(spark, cadence_hours):
    on = ((1, "2015-01-03"), (1, "2015-01-04"))
    readings = [(1, at, float(n * 31 % 101)) for n, (_, at, _) in enumerate(hourly(1, "2015-01-01 00:00", "2015-01-04 23:00"))]
    seen = within_reach(telemetry(spark, readings), day("2015-01-03"), day("2015-01-05"), cadence_hours).collect()
    assert len(seen) < len(readings)
    reached = [(row["machine_id"], row["observed_at"].strftime("%Y-%m-%d %H:%M"), row["volt"]) for row in seen]
    assert observe(spark, reached, on=on, cadence_hours=cadence_hours) == observe(
        spark, readings, on=on, cadence_hours=cadence_hours
    )


def test_means_and_deviations_of_three_lookbacks_worked_by_hand(spark):
    # 36 hours up to 06:00 of the 3rd: twelve readings of 1, then twelve of 2, then twelve of 6
    readings = (
        hourly(1, "2015-01-01 19:00", "2015-01-02 06:00", 1.0)
        + hourly(1, "2015-01-02 07:00", "2015-01-02 18:00", 2.0)
        + hourly(1, "2015-01-02 19:00", "2015-01-03 06:00", 6.0)
    )
    row = observe(spark, readings)[(1, "03 06")]
    assert (row["volt_mean_12h"], row["volt_mean_24h"], row["volt_mean_36h"]) == (6.0, 4.0, 3.0)
    assert row["volt_std_12h"] == 0.0
    assert row["volt_std_24h"] == pytest.approx((12 * (4 + 4) / 23) ** 0.5, rel=1e-14)
    assert row["volt_std_36h"] == pytest.approx((12 * (4 + 1 + 9) / 35) ** 0.5, rel=1e-14)


def test_a_missing_bucket_is_a_gap_and_not_the_bucket_before_it(spark):
    # nothing between 02 06:00 and 02 18:00: the 24 h before 03 06:00 hold only the last twelve readings
    readings = hourly(1, "2015-01-01 19:00", "2015-01-02 06:00", 1.0) + hourly(1, "2015-01-02 19:00", "2015-01-03 06:00", 6.0)
    row = observe(spark, readings)[(1, "03 06")]
    assert row["volt_mean_24h"] == 6.0
    assert row["volt_mean_36h"] == 3.5
    assert row["readings_36h"] == 24


def test_one_reading_has_a_mean_and_no_deviation(spark):
    row = observe(spark, [(1, "2015-01-03 06:00", 5.0)])[(1, "03 06")]
    assert row["volt_mean_12h"] == 5.0
    assert row["volt_std_12h"] is None


def test_a_silent_machine_keeps_its_row(spark):
    rows = observe(spark, hourly(2, "2015-01-02 20:00", "2015-01-03 06:00"), on=((1, "2015-01-03"), (2, "2015-01-03")))
    assert rows[(1, "03 06")]["volt_mean_36h"] is None
    assert rows[(1, "03 06")]["readings_36h"] == 0
    assert rows[(2, "03 06")]["readings_36h"] == 11


def test_a_machine_that_fell_silent_keeps_the_level_of_its_earlier_readings(spark):
    # Far from zero for their spread, so centred before they are squared; machine 2 makes the observation time land.
    readings = [(1, "2015-01-02 10:00", 1000.0), (1, "2015-01-02 11:00", 1002.0)]
    readings += hourly(2, "2015-01-02 07:00", "2015-01-03 06:00")
    row = observe(spark, readings, on=((1, "2015-01-03"), (2, "2015-01-03")))[(1, "03 06")]
    assert (row["volt_mean_12h"], row["volt_mean_24h"]) == (None, 1001.0)
    assert row["volt_std_24h"] == pytest.approx(2**0.5, rel=1e-14)


def test_an_observation_whose_last_hour_has_not_landed_is_not_made(spark):
    rows = observe(spark, hourly(1, "2015-01-02 00:00", "2015-01-03 17:00"))
    assert set(rows) == {(1, "03 06")}


def test_machines_do_not_see_each_other(spark):
    readings = hourly(1, "2015-01-02 19:00", "2015-01-03 06:00", 1.0) + hourly(2, "2015-01-02 19:00", "2015-01-03 06:00", 9.0)
    rows = observe(
        spark,
        readings,
        on=((1, "2015-01-03"), (2, "2015-01-03")),
        errors_=[(1, "2015-01-03 01:00", "error2")],
        maintenance_=[(2, "2015-01-01 06:00", "comp4")],
    )
    assert (rows[(1, "03 06")]["volt_mean_12h"], rows[(2, "03 06")]["volt_mean_12h"]) == (1.0, 9.0)
    assert (rows[(1, "03 06")]["error2_count_24h"], rows[(2, "03 06")]["error2_count_24h"]) == (1, 0)
    assert (rows[(1, "03 06")]["comp4_never_replaced"], rows[(2, "03 06")]["comp4_never_replaced"]) == (
        True,
        False,
    )


@pytest.mark.parametrize(
    ("occurred_at", "count"),
    [
        pytest.param("2015-01-02 06:00", 0, id="24 h before: just outside"),
        pytest.param("2015-01-02 06:01", 1, id="a minute less than 24 h before"),
        pytest.param("2015-01-03 06:00", 1, id="at the observation"),
        pytest.param("2015-01-03 06:01", 0, id="a minute after it"),
    ],
)
def test_errors_of_the_last_24_hours_count(spark, occurred_at, count):
    rows = observe(spark, hourly(1, "2015-01-02 00:00", "2015-01-03 06:00"), errors_=[(1, occurred_at, "error5")])
    assert rows[(1, "03 06")]["error5_count_24h"] == count


def test_two_errors_of_one_code_count_twice(spark):
    happened = [
        (1, "2015-01-02 10:00", "error1"),
        (1, "2015-01-03 05:00", "error1"),
        (1, "2015-01-03 05:00", "error3"),
    ]
    row = observe(spark, hourly(1, "2015-01-02 00:00", "2015-01-03 06:00"), errors_=happened)[(1, "03 06")]
    assert [row[f"error{n}_count_24h"] for n in range(1, 6)] == [2, 0, 1, 0, 0]


def test_the_latest_earlier_replacement_counts_not_the_oldest_or_a_later_one(spark):
    replaced = [
        (1, "2014-06-01 06:00", "comp1"),
        (1, "2014-12-31 06:00", "comp1"),
        (1, "2015-01-03 06:01", "comp1"),
        (1, "2015-01-03 06:00", "comp2"),
    ]
    row = observe(spark, hourly(1, "2015-01-02 00:00", "2015-01-03 07:00"), maintenance_=replaced)[(1, "03 06")]
    assert row["comp1_days_since_replacement"] == 3.0
    assert row["comp2_days_since_replacement"] == 0.0
    assert (row["comp3_days_since_replacement"], row["comp3_never_replaced"]) == (None, True)


@pytest.mark.parametrize(
    ("cadence", "hours"),
    [(24, (6,)), (12, (6, 18)), (6, (0, 6, 12, 18)), (3, tuple(range(0, 24, 3))), (1, tuple(range(24)))],
)
def test_every_cadence_observes_from_06_00_on(cadence, hours):
    assert observation_hours(cadence) == hours


def close(one, other):
    return one == pytest.approx(other, rel=1e-12) if isinstance(one, float) else one == other


@pytest.mark.parametrize("cadence", [1, 3, 6, 24])
def test_another_cadence_gives_the_same_row_at_the_same_time(spark, cadence):
    readings = [(1, at, float(n * n % 37)) for n, (_, at, _) in enumerate(hourly(1, "2015-01-01 00:00", "2015-01-03 23:00"))]
    happened = [(1, "2015-01-02 08:30", "error4")]
    at_06 = observe(spark, readings, errors_=happened)[(1, "03 06")]
    other = observe(spark, readings, errors_=happened, cadence_hours=cadence)
    assert len(other) == 24 // cadence
    same = other[(1, "03 06")]
    assert {name for name in at_06 if not close(same[name], at_06[name])} == set()


def exact(values):
    """Mean and sample standard deviation with 60 digits."""
    with decimal.localcontext(decimal.Context(prec=60)):
        numbers = [decimal.Decimal(v) for v in values]
        mean = sum(numbers) / len(numbers)
        return float(mean), float((sum((n - mean) ** 2 for n in numbers) / (len(numbers) - 1)).sqrt())


@pytest.mark.parametrize(("level", "spread"), [(1e9, 1e-3), (-1e9, 1e-3), (1e9, 0.0), (170.0, 15.0), (1e-9, 1e-12), (0.0, 1.0)])
def test_statistics_keep_their_digits_where_the_level_dwarfs_the_spread(spark, level, spread):
    values = [level + spread * ((7 * n * n + 3 * n) % 17 - 8) / 8 for n in range(36)]
    times = [at for _, at, _ in hourly(1, "2015-01-01 19:00", "2015-01-03 06:00")]
    row = observe(spark, [(1, at, v) for at, v in zip(times, values, strict=True)])[(1, "03 06")]
    for hours in (12, 24, 36):
        mean, deviation = exact(values[-hours:])
        assert row[f"volt_mean_{hours}h"] == pytest.approx(mean, rel=1e-14, abs=1e-15)
        # against the 60-digit value of the doubles as they are stored
        assert row[f"volt_std_{hours}h"] == pytest.approx(deviation, rel=1e-9, abs=1e-18)


class TestNoFuture:
    """Dropping everything after T changes no feature at or before T; making it absurd does not either.

    Each machine lives the same life and is cut at another T, every 90 minutes of 30 hours, so that one frame tries them all.
    """

    CUTS = tuple(utc("2015-01-03 00:00") + n * dt.timedelta(minutes=90) for n in range(21))
    HOURS = tuple(utc("2015-01-01 00:00") + n * HOUR for n in range(96))
    EVENTS = tuple(utc("2015-01-02 03:00") + n * dt.timedelta(minutes=301) for n in range(12))
    DAYS = (day("2015-01-03"), day("2015-01-04"))
    TABLES = (MACHINES, TELEMETRY, ERRORS, MAINTENANCE)

    def life(self, machine, until=None, absurd=False):
        """Rows of the raw tables of one machine; what comes after `until` is left out, or such as never was."""
        fleet = [(machine, "model3", 18, on) for on in self.DAYS]
        readings = [(machine, at, *(float(n * k % 101) for k in (31, 17, 43, 7))) for n, at in enumerate(self.HOURS)]
        happened = [(machine, at, f"error{n % 5 + 1}") for n, at in enumerate(self.EVENTS)]
        replaced = [(machine, at, f"comp{n % 4 + 1}") for n, at in enumerate(self.EVENTS)]
        if until is None:
            return fleet, readings, happened, replaced
        events = [[row for row in rows if row[1] <= until] for rows in (readings, happened, replaced)]
        if absurd:
            after = [at for hour in self.HOURS for at in (hour, hour + dt.timedelta(minutes=1)) if at > until]
            fleet = [row if on <= until.date() else (machine, "no model", 199, on) for row in fleet for on in row[3:]]
            events[0] += [(machine, at, 1e9, -1e9, 1e-9, 1e300) for at in after]
            events[1] += [(machine, at, code) for at in after for code in ERROR_CODES]
            events[2] += [(machine, at, component) for at in after for component in COMPONENTS]
        return fleet, *events

    def observed(self, spark, lives, cadence_hours):
        """By machine, the observations of its lives by time."""
        tables = [[row for life in lives for row in life[n]] for n in range(4)]
        frames = [
            frame(spark, table, rows) for table, rows in zip((MACHINES, TELEMETRY, ERRORS, MAINTENANCE), tables, strict=True)
        ]
        found = {}
        for row in observe_machines(*frames, cadence_hours=cadence_hours).toArrow().to_pylist():
            found.setdefault(row.pop("machine_id"), {})[row["observed_at"]] = row
        return found

    @pytest.mark.parametrize("cadence", [1, 3, 12, 24])
    def test_no_feature_sees_past_its_observation(self, spark, cadence):
        (whole,) = self.observed(spark, [self.life(0)], cadence).values()
        assert len(whole) == 2 * 24 // cadence
        for absurd in (False, True):
            cut = self.observed(spark, [self.life(m, until, absurd) for m, until in enumerate(self.CUTS)], cadence)
            for machine, until in enumerate(self.CUTS):
                past = {at: row for at, row in whole.items() if at <= until}
                assert {at: row for at, row in cut[machine].items() if at <= until} == past, (absurd, until)
        # the last cut is at an observation of every cadence, which was made with nothing landed after it
        assert self.CUTS[-1] in whole


def test_a_range_of_days_gives_the_rows_of_the_whole_history(spark):
    readings = [
        (m, at, float((n * m * 31) % 101))
        for m in (1, 2)
        for n, (_, at, _) in enumerate(hourly(m, "2015-01-01 00:00", "2015-01-05 23:00"))
    ]
    replaced = [(1, "2015-01-01 06:00", "comp1"), (2, "2015-01-04 06:00", "comp3")]
    happened = [(1, "2015-01-03 20:00", "error1")]
    days = ["2015-01-01", "2015-01-02", "2015-01-03", "2015-01-04", "2015-01-05"]
    whole = observe(spark, readings, on=[(m, d) for m in (1, 2) for d in days], errors_=happened, maintenance_=replaced)
    window = [row for row in readings if "2015-01-02" <= row[1] < "2015-01-05"]
    alone = observe(spark, window, on=[(1, "2015-01-04"), (2, "2015-01-04")], errors_=happened, maintenance_=replaced)
    assert alone == {key: row for key, row in whole.items() if row["date"] == day("2015-01-04")}
    assert len(alone) == 4


def test_the_reference_deviation_is_the_sample_one():
    assert exact([1.0, 3.0])[1] == pytest.approx(statistics.stdev([1.0, 3.0]))
