import datetime as dt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import functions as F

from pdm_assets.models.events import Moments, are_decided
from pdm_assets.models.table import LABELS, label_of, scorable, thin_out, thinning, training_table, without_undecided
from pdm_assets.schemas.features import READINGS_COUNT
from pdm_assets.schemas.raw import COMPONENTS
from pdm_assets_tests.models.fleet import fleet_columns, labels_of, observations_of


def small_fleet(rows=6):
    return {name: values[:rows] for name, values in fleet_columns().items()}


def test_the_training_table_has_one_row_per_observation_with_its_outcomes(spark):
    columns = small_fleet()
    columns["error1_count_24h"] = [1, 0, 0, 0, 0, 0]
    columns["error2_count_24h"] = [1, 0, 1, 0, 0, 0]
    columns["error3_count_24h"] = columns["error4_count_24h"] = [0] * 6
    table = training_table(observations_of(spark, columns), labels_of(spark, columns), 48)
    found = {row["observed_at"]: tuple(row[label] for label in LABELS) for row in table.collect()}
    healthy = (0.0, 0.0, 0.0, 0.0)
    expected = [(1.0, 1.0, 0.0, 0.0), healthy, (0.0, 1.0, 0.0, 0.0), healthy, healthy, healthy]
    assert found == dict(zip((at.replace(tzinfo=None) for at in columns["observed_at"]), expected, strict=True))


def test_an_observation_needs_the_known_outcome_of_every_component(spark):
    columns = small_fleet()
    unknown_at = columns["observed_at"][0]
    is_known = ~((F.col("component") == "comp3") & (F.col("observed_at") == F.lit(unknown_at)))
    table = training_table(observations_of(spark, columns), labels_of(spark, columns).filter(is_known), 48)
    assert table.count() == 5
    assert table.filter(F.col("observed_at") == F.lit(unknown_at)).count() == 0


def test_labels_of_another_horizon_are_no_outcomes(spark):
    columns = small_fleet()
    observations = observations_of(spark, columns)
    other = labels_of(spark, columns, horizon_hours=24)
    assert training_table(observations, other, 48).count() == 0
    both = training_table(observations, other.union(labels_of(spark, columns, never=("comp1",))), 48)
    assert both.agg(F.count("*"), F.sum("fails_comp1")).first() == (6, 0.0)


def test_an_observation_is_scorable_from_half_of_the_readings_on(spark):
    columns = small_fleet()
    columns[READINGS_COUNT] = [0, 17, 18, 19, 35, 36]
    observations = observations_of(spark, columns)
    assert [row[READINGS_COUNT] for row in scorable(observations).collect()] == [18, 19, 35, 36]
    assert training_table(observations, labels_of(spark, columns), 48).count() == 4


@pytest.mark.parametrize(
    ("healthy", "failing", "one_in"),
    [
        pytest.param(90, 10, (1, 1), id="all fit"),
        pytest.param(91, 10, (2, 1), id="one too many: every second healthy row"),
        pytest.param(900, 10, (10, 1), id="many healthy rows"),
        pytest.param(900, 51, (13, 2), id="failing rows fill half at most"),
        pytest.param(0, 10, (1, 1), id="no healthy row"),
    ],
)
def test_rows_are_thinned_out_to_fit(healthy, failing, one_in):
    assert thinning(healthy, failing, max_rows=100) == one_in


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_what_is_kept_is_not_more_than_fits(healthy, failing):
    one_healthy_in, one_failing_in = thinning(healthy, failing, max_rows=1000)
    assert healthy / one_healthy_in + failing / one_failing_in <= 1000


def test_thinned_rows_stand_for_all_of_them(spark):
    columns = {
        "machine_id": list(range(20_000)),
        "observed_at": [dt.datetime(2015, 1, 1, tzinfo=dt.UTC)] * 20_000,
    }
    rows = spark.createDataFrame(list(zip(*columns.values(), strict=True)), list(columns))
    healthy = F.when(F.col("machine_id") < 2_000, 1.0).otherwise(0.0)
    rows = rows.withColumns({label: healthy if label == "fails_comp2" else F.lit(0.0) for label in LABELS})
    thinned = thin_out(rows, one_healthy_in=9, one_failing_in=1, seed=3)
    found = {row["fails_comp2"]: row for row in thinned.groupBy("fails_comp2").agg(F.sum("weight"), F.count("*")).collect()}
    assert tuple(found[1.0])[1:] == (2_000.0, 2_000)
    # 2,000 of 18,000 by a fair hash: three standard deviations are 127 rows
    assert abs(found[0.0]["count(1)"] - 2_000) < 127
    assert found[0.0]["sum(weight)"] == 9 * found[0.0]["count(1)"]
    assert set(thinned.collect()) == set(thin_out(rows.repartition(3), 9, 1, seed=3).collect())
    assert set(thinned.collect()) != set(thin_out(rows, 9, 1, seed=4).collect())


def test_rows_of_a_component_that_seldom_fails_are_all_kept(spark):
    at = dt.datetime(2015, 1, 1, tzinfo=dt.UTC)
    rows = spark.createDataFrame([(machine, at) for machine in range(3_000)], ["machine_id", "observed_at"])
    rows = rows.withColumns({label: F.lit(0.0) for label in LABELS} | {"fails_comp1": F.lit(1.0)})
    rows = rows.withColumn("fails_comp3", (F.col("machine_id") < 12).cast("double"))
    kept = thin_out(rows, 1, 9, 3, ["comp3"]).groupBy("fails_comp3").agg(F.count("*"), F.max("weight")).collect()
    found = {row["fails_comp3"]: tuple(row)[1:] for row in kept}
    assert found[1.0] == (12, 1.0)
    # 333 of 3,000 by a fair hash: three standard deviations are 52 rows
    assert abs(found[0.0][0] - 332) < 52
    assert found[0.0][1] == 9.0


MOMENTS = st.sets(st.tuples(st.integers(1, 2), st.sampled_from(COMPONENTS), st.integers(0, 120)), max_size=12)


@settings(max_examples=10)
@given(failures=MOMENTS, replacements=MOMENTS, horizon=st.sampled_from([24, 48]))
def test_labels_that_nobody_can_know_are_none(spark, failures, replacements, horizon):
    """What is learnt from is what is measured by: `events.are_decided`, read by Spark."""
    start = dt.datetime(2015, 1, 1, tzinfo=dt.UTC)
    grid = [(machine, hour) for machine in (1, 2, 3) for hour in range(0, 120, 6)]

    def at(hour):
        return start + dt.timedelta(hours=hour)

    rows = spark.createDataFrame([(m, at(h), *[1.0] * len(LABELS)) for m, h in grid], ["machine_id", "observed_at", *LABELS])
    failed = spark.createDataFrame(
        [(m, c, at(h)) for m, c, h in failures], "machine_id long, component string, failed_at timestamp"
    )
    replaced = spark.createDataFrame(
        [(m, c, at(h)) for m, c, h in replacements], "machine_id long, component string, performed_at timestamp"
    )
    found = {
        (row["machine_id"], row["observed_at"]): row for row in without_undecided(rows, failed, replaced, horizon).collect()
    }
    assert len(found) == len(grid)

    def moments(pairs):
        return Moments(np.array([m for m, _ in pairs], np.int64), np.array([h * 3_600 for _, h in pairs], np.int64))

    for component in COMPONENTS:
        its = [(m, h) for m, c, h in failures if c == component]
        closings = its + [(m, h) for m, c, h in replacements if c == component]
        decided = are_decided(moments(grid), moments(its), moments(closings), horizon)
        label = label_of(component)
        assert [found[m, at(h).replace(tzinfo=None)][label] == 1.0 for m, h in grid] == decided.tolist()
