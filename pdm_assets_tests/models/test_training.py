import dataclasses
import datetime as dt
import functools
import shutil
import uuid
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import functions as F

from pdm_assets.models.calibration import Platt
from pdm_assets.models.evaluation import POOLED
from pdm_assets.models.pipeline import MODEL_TYPES
from pdm_assets.models.reasons import shares
from pdm_assets.models.rules import Healthy
from pdm_assets.models.scoring import score
from pdm_assets.models.served import SavedPipeline
from pdm_assets.models.training import TrainingError, examine, train, weigh
from pdm_assets.models.windows import Window, model_windows
from pdm_assets.schemas.features import COMPONENT_RISK, READINGS_COUNT
from pdm_assets.schemas.raw import COMPONENTS, FAILURES, MAINTENANCE
from pdm_assets_tests.builders import day, utc
from pdm_assets_tests.models.fleet import (
    CUTOFF,
    DAYS,
    FIRST_DAY,
    MACHINES,
    SETTINGS,
    fleet_columns,
    labels_of,
    observations_of,
)

FEW = {
    # every split sees every feature, or five trees would be too few to outvote those that never saw the error
    "random_forest": {"numTrees": 5, "maxDepth": 3, "featureSubsetStrategy": "all"},
    "decision_tree": {"maxDepth": 2},
    "gradient_boosted_trees": {"maxIter": 2, "maxDepth": 2},
    "logistic_regression": {"maxIter": 20},
}
COLUMNS = fleet_columns()
WINDOWS = model_windows(CUTOFF, SETTINGS)


def failures_of(spark, failures):
    return spark.createDataFrame([(m, utc(at), c, day(at[:10])) for m, at, c in failures], FAILURES.struct)


@pytest.fixture(scope="module")
def trained(fitter, tmp_path_factory):
    """Trains a model."""
    return functools.partial(trained_by, fitter, tmp_path_factory.mktemp("trained"))


def trained_by(
    fitter,
    scratch,
    observations,
    labels,
    model_type="decision_tree",
    settings=SETTINGS,
    failures=(),
    replacements=(),
    parameters=None,
):
    spark = observations.sparkSession
    return train(
        observations,
        labels,
        failures_of(spark, failures),
        spark.createDataFrame([(m, utc(at), c, day(at[:10])) for m, at, c in replacements], MAINTENANCE.struct),
        cutoff=CUTOFF,
        settings=settings,
        model_type=model_type,
        data_versions={"features/observations": 3, "labels/component_failures": 5},
        code_version="0.1.0",
        version=f"test-{model_type}",
        fitter=fitter,
        folder=scratch / uuid.uuid4().hex,
        parameters=FEW[model_type] | (parameters or {}),
    )


def risks(observations, pipeline, card):
    rows = score(observations, pipeline, card).collect()
    return {(row["machine_id"], row["observed_at"], row["component"]): row["probability"] for row in rows}


def assert_same(one, other):
    assert one.card == other.card
    for window, outcomes in one.outcomes.items():
        for component, (probability, *_) in outcomes.items():
            assert np.array_equal(probability, other.outcomes[window][component].probability)


@pytest.fixture(scope="module")
def observations(spark):
    return observations_of(spark, COLUMNS)


@pytest.fixture(scope="module")
def labels(spark):
    return labels_of(spark, COLUMNS)


@pytest.fixture(scope="module")
def a_tree(observations, labels, trained):
    return trained(observations, labels)


@pytest.fixture(scope="module", params=MODEL_TYPES)
def model(request, observations, labels, trained):
    return trained(observations, labels, request.param)


def test_a_separable_fleet_is_foretold(model):
    for component in COMPONENTS:
        found = model.card.metrics["test"][component]
        assert found.average_precision == pytest.approx(1.0)  # a sum of shares
        assert found.observation_f1 == 1.0


def test_every_observation_gets_a_probability_per_component(model, observations):
    found = risks(observations, model.pipeline, model.card)
    assert len(found) == MACHINES * DAYS * 2 * len(COMPONENTS)
    assert all(0 <= probability <= 1 for probability in found.values())


def test_importance_is_that_of_the_error_which_tells(model):
    for component in COMPONENTS:
        shares = model.card.importances[component]
        assert sum(shares.values()) == pytest.approx(1.0)  # a sum of shares
        assert max(shares, key=shares.__getitem__) == f"{component.replace('comp', 'error')}_count_24h"


def test_the_same_rows_in_another_order_make_the_same_model(model, observations, labels, trained):
    again = trained(
        observations.repartition(3).sortWithinPartitions(F.desc("observed_at")),
        labels.repartition(4, "component"),
        model.card.model_type,
    )
    assert_same(again, model)


def test_a_saved_model_scores_as_before(model, observations, tmp_path):
    loaded = SavedPipeline(Path(shutil.copytree(model.pipeline.folder, tmp_path / "model")))
    assert risks(observations, loaded, model.card) == risks(observations, model.pipeline, model.card)


def test_the_card_counts_what_each_window_holds(a_tree):
    card = a_tree.card
    for name, window in WINDOWS.named().items():
        inside = [n for n, at in enumerate(COLUMNS["observed_at"]) if window.start_at <= at < window.end_at]
        positives = {c: sum(COLUMNS[f"{c.replace('comp', 'error')}_count_24h"][n] for n in inside) for c in COMPONENTS}
        assert (card.windows[name].rows, card.windows[name].positives) == (len(inside), positives)
    assert card.rows_fitted == MACHINES * 20 * 2
    assert card.metrics["calibration"]["comp1"].positives == card.windows["calibration"].positives["comp1"]
    assert len(a_tree.outcomes["test"]["comp1"].fails) == MACHINES * 8 * 2


def test_no_row_outside_of_the_windows_is_used(spark, a_tree, observations, labels, trained):
    inside = F.lit(False)
    for window in WINDOWS.named().values():
        inside |= (F.col("observed_at") >= F.lit(window.start_at)) & (F.col("observed_at") < F.lit(window.end_at))
    poisoned = observations.withColumns(
        {f"error{n}_count_24h": F.when(inside, F.col(f"error{n}_count_24h")).otherwise(99) for n in range(1, 6)}
    )
    flipped = F.when(inside, F.col("fails_within_horizon")).otherwise(~F.col("fails_within_horizon"))
    again = trained(poisoned, labels.withColumn("fails_within_horizon", flipped))
    assert_same(again, a_tree)


def test_failures_are_caught_or_missed_in_the_test_window_and_later_ones_are_not_looked_at(observations, labels, trained):
    # the test window is 2015-02-04 to 2015-02-11; whoever reports errors is alerted on, half of all observations or so
    known = [(1, "2015-02-08 06:00", "comp1"), (2, "2015-02-09 06:00", "comp2")]
    model = trained(observations, labels, failures=known)
    found = model.card.events[POOLED]
    assert found.observed.failures == 2
    assert set(found.delivered) == {"hourly files", "six-hourly files", "daily files"}
    assert set(found.rules) == {"own error", "own channel shifted", "own error and channel"}
    assert found.never_cost == 2 * SETTINGS.cost_missed_failure
    later = [(3, "2015-02-14 00:00", "comp1"), (4, "2015-02-20 06:00", "comp1")]
    assert_same(trained(observations, labels, failures=known + later), model)


def test_a_crew_that_does_as_it_is_told_does_not_teach_the_next_model_to_keep_quiet(observations, labels, trained):
    # On half of the machines comp1 is replaced two hours after each warning, so it never fails there.
    warned = [
        (machine, str(at + dt.timedelta(hours=2))[:16], "comp1")
        for machine, at, count in zip(COLUMNS["machine_id"], COLUMNS["observed_at"], COLUMNS["error1_count_24h"], strict=True)
        if count and machine % 2
    ]
    is_prevented = (F.col("machine_id") % 2 == 1) & (F.col("component") == "comp1")
    prevented = labels.withColumn("fails_within_horizon", F.col("fails_within_horizon") & ~is_prevented)

    def taught(labels, replacements=()):
        """Trained so, and what it says on average of observations with the tell-tale error."""
        few = {"minInstancesPerNode": 5}  # of those whose outcome is known
        model = trained(observations, labels, replacements=replacements, parameters=few)
        return model, model.outcomes["test"]["comp1"].probability[model.bench.signs["error1_count_24h"] > 0].mean()

    _, undisturbed = taught(labels)
    obeyed, said = taught(prevented, warned)
    assert said == pytest.approx(undisturbed, abs=0.1)
    _, said = taught(prevented)  # what it would be taught if nobody told it of the replacements
    assert said < 0.7
    # what nobody knows is not measured by either
    counted, all_rows = obeyed.card.metrics["test"]["comp1"].rows, obeyed.card.windows["test"].rows
    assert counted == obeyed.outcomes["test"]["comp1"].is_decided.sum() < all_rows
    assert obeyed.card.metrics["test"]["comp2"].rows == all_rows


@pytest.fixture(scope="module")
def failing():
    """Failures of comp1 in the test window that errors foretell."""
    errors = [
        (machine, at)
        for machine, at, count in zip(COLUMNS["machine_id"], COLUMNS["observed_at"], COLUMNS["error1_count_24h"], strict=True)
        if count and utc("2015-02-06 06:00") <= at < utc("2015-02-09 00:00")
    ]
    first = {machine: at for machine, at in reversed(errors)}  # of each machine
    failures = [(machine, str(at + dt.timedelta(hours=36))[:16], "comp1") for machine, at in first.items()]
    assert len(failures) == 5
    return failures


@pytest.fixture(scope="module")
def challenger(observations, labels, failing, trained):
    """A tree with failures in its test window, all of which it can warn of."""
    return trained(observations, labels, failures=failing)


def without_alerts(card, **changed):
    return dataclasses.replace(card, version="silent", thresholds=dict.fromkeys(COMPONENTS, 1.0), **changed)


def test_the_gate_weighs_both_models_on_the_challengers_test_window(challenger):
    verdict = weigh(challenger, (challenger.pipeline, without_alerts(challenger.card)))
    (cheaper,) = [c for c in verdict.conditions if c.name.startswith("cheaper than the incumbent")]
    cost = challenger.card.events[POOLED].observed.cost
    assert cheaper.found.startswith(f"{cost:,.0f} against 50,000 of silent")
    recall = next(c for c in verdict.conditions if c.name.startswith("comp1's event recall"))
    assert recall.found == "1.000 against 0.000"


def test_the_gate_gives_an_incumbent_of_another_type_its_own_calibration(challenger, observations, labels, trained):
    other = trained(observations, labels, "logistic_regression")
    verdict = weigh(challenger, (other.pipeline, dataclasses.replace(other.card, version="other")))
    same = weigh(challenger, (challenger.pipeline, dataclasses.replace(challenger.card, version="other")))
    # Both know the toy fleet by heart, so they alert on the same rows and neither is cheaper.
    assert verdict == same
    assert not verdict.is_promoted
    assert "cheaper in 0%" in verdict.reason


def test_a_model_examined_on_the_window_that_it_was_tested_on_is_what_its_card_says(challenger, observations, labels, failing):
    spark = observations.sparkSession
    again = examine(
        challenger.pipeline,
        challenger.card,
        observations,
        labels,
        failures_of(spark, failing),
        spark.createDataFrame([], MAINTENANCE.struct),
        cutoff=CUTOFF,
        settings=SETTINGS,
    )
    assert again == challenger.card


def test_a_model_examined_on_another_fleet_is_judged_by_that_fleets_failures(challenger, observations, labels):
    spark = observations.sparkSession
    healthy = labels.withColumn("fails_within_horizon", F.lit(False))
    none = [spark.createDataFrame([], table.struct) for table in (FAILURES, MAINTENANCE)]
    found = examine(
        challenger.pipeline, challenger.card, observations, healthy, *none, cutoff=CUTOFF, settings=SETTINGS
    ).events[POOLED]
    assert (found.observed.failures, found.observed.true_episodes) == (0, 0)
    assert found.observed.false_episodes > 0


def test_the_gate_does_not_compare_on_days_that_the_incumbent_was_tuned_on(challenger):
    windows = dict(challenger.card.windows)
    later = Window(dt.date(2015, 1, 28), dt.date(2015, 2, 5))
    windows["calibration"] = dataclasses.replace(windows["calibration"], window=later)
    verdict = weigh(challenger, (challenger.pipeline, without_alerts(challenger.card, windows=windows)))
    assert not verdict.is_promoted
    assert "silent was tuned on what was known before 2015-02-07, the test window begins on 2015-02-04" in verdict.reason


def test_a_first_model_is_weighed_against_the_rules_alone(challenger):
    names = [condition.name for condition in weigh(challenger, None).conditions]
    assert names[2] == "no rule is cheaper by 10% in 90% of the resamples"
    assert not any("incumbent" in name for name in names)


def test_scores_have_the_columns_of_their_table_but_for_what_the_run_knows(a_tree, observations):
    scores = score(observations, a_tree.pipeline, a_tree.card)
    kinds = {field.name: field.dataType for field in COMPONENT_RISK.columns}
    assert {field.name: field.dataType for field in scores.schema.fields} == {
        name: kind for name, kind in kinds.items() if name not in ("scored_at", "features_version")
    }
    wrong = F.col("is_alert") != (F.col("probability") >= F.col("threshold"))
    assert scores.filter(wrong).count() == 0
    assert {row["component"]: row["threshold"] for row in scores.collect()} == a_tree.card.thresholds


def test_an_observation_with_few_readings_is_not_scored(a_tree, observations):
    first = F.col("observed_at") == F.lit(COLUMNS["observed_at"][0])
    thin = observations.withColumn(READINGS_COUNT, F.when(first, 17).otherwise(18))
    scores = score(thin, a_tree.pipeline, a_tree.card)
    assert scores.count() == MACHINES * (DAYS * 2 - 1) * len(COMPONENTS)
    assert scores.filter(first).count() == 0


def test_a_machine_model_that_training_never_saw_is_scored(model, observations):
    unseen = observations.withColumn("machine_model", F.lit("model9")).limit(5)
    assert score(unseen, model.pipeline, model.card).count() == 5 * len(COMPONENTS)


def test_unknown_values_are_learnt_from_and_scored(spark, labels, observations, trained):
    columns = dict(COLUMNS)
    pressure = [f"pressure_{statistic}_{hours}h" for statistic in ("mean", "std") for hours in (12, 24, 36)]
    columns |= {name: [None] * len(COLUMNS["machine_id"]) for name in pressure}  # the channel was silent all along
    columns["comp1_days_since_replacement"] = [None, *COLUMNS["comp1_days_since_replacement"][1:]]
    columns["volt_std_36h"] = [float("nan"), *COLUMNS["volt_std_36h"][1:]]
    columns["comp2_days_since_replacement"] = [None] * len(COLUMNS["machine_id"])
    without = observations_of(spark, columns)
    model = trained(without, labels)
    assert "comp1_days_since_replacement" in model.card.features
    unused = ["comp2_days_since_replacement", *sorted(pressure)]
    assert not {*unused} & {*model.card.features}
    assert model.card.notes[-1] == f"not used, for no row of the training window has a value: {', '.join(unused)}"
    found = risks(without, model.pipeline, model.card)
    assert len(found) == MACHINES * DAYS * 2 * len(COMPONENTS)
    # the channel is heard again: what was not learnt has no say
    assert risks(observations, model.pipeline, model.card) == found


def test_a_channel_that_falls_silent_is_scored_as_if_it_were_normal(model, observations):
    silent = observations.withColumns(
        {f"volt_{kind}_{hours}h": F.lit(None).cast("double") for kind in ("mean", "std") for hours in (12, 24, 36)}
    )
    found = risks(silent, model.pipeline, model.card)
    assert found.keys() == risks(observations, model.pipeline, model.card).keys()
    assert all(0 <= probability <= 1 for probability in found.values())


def test_a_feature_that_never_varies_says_nothing_and_breaks_nothing(observations, labels, trained):
    never_vary = {"age_years": F.lit(7)}
    for hours in (12, 24, 36):
        never_vary |= {f"volt_mean_{hours}h": F.lit(170.0), f"volt_std_{hours}h": F.lit(0.0)}
    constant = observations.withColumns(never_vary)
    model = trained(constant, labels, "logistic_regression")  # it alone divides by deviations
    assert all(0 <= probability <= 1 for probability in risks(constant, model.pipeline, model.card).values())
    assert model.card.healthy["volt"] == Healthy(170.0, 0.0)
    for shares_of in model.card.importances.values():
        assert {shares_of[name] for name in never_vary} == {0.0}
    older = constant.withColumn("age_years", F.lit(8)).where("machine_id = 1 AND observed_at < '2015-01-02'")
    for found in shares(older.toArrow().to_pylist(), model.pipeline, model.card).values():
        assert {share.lost for share in found if share.sign == "age_years"} == {0.0}


def test_a_component_that_never_fails_is_not_foretold_but_scored(spark, observations, trained):
    model = trained(observations, labels_of(spark, COLUMNS, never=("comp3",)))
    rows = MACHINES * 20 * 2
    assert model.card.constant_probabilities == {"comp3": 1 / (rows + 2)}
    assert [note for note in model.card.notes if "comp3" in note] == [
        "comp3 never fails in the training window: it is not foretold"
    ]
    assert set(model.card.importances) == {"comp1", "comp2", "comp4"}
    scores = score(observations, model.pipeline, model.card).filter("component = 'comp3'")
    assert scores.select("probability", "is_alert").distinct().collect() == [(1 / (rows + 2), False)]


def test_a_threshold_that_could_not_be_chosen_is_said_so(observations, labels, trained):
    calm = F.col("observed_at") < F.lit(WINDOWS.calibration.start_at)
    model = trained(observations, labels.withColumn("fails_within_horizon", F.col("fails_within_horizon") & calm))
    # a false visit costs 1,000, and a failure caught saves 10,000 - 2,000
    assert model.card.thresholds == pytest.approx(dict.fromkeys(COMPONENTS, 1 / 9))
    assert model.card.calibration == dict.fromkeys(COMPONENTS, Platt())
    assert model.card.notes == tuple(
        f"no failure of {component} was due in the calibration window: its threshold 0.111 follows from the costs alone"
        for component in COMPONENTS
    )
    assert model.card.metrics["test"][POOLED].average_precision is None


def test_windows_without_rows_to_tune_and_test_on_leave_metrics_open(observations, labels, trained):
    early = observations.filter(F.col("observed_at") < F.lit(WINDOWS.train.end_at))
    model = trained(early, labels)
    card = model.card
    assert (card.windows["test"].rows, card.metrics["test"][POOLED].brier) == (0, None)
    assert card.thresholds == pytest.approx(dict.fromkeys(COMPONENTS, 1 / 9))
    assert card.events[POOLED].observed.event_recall is None
    assert not weigh(model, None).is_promoted


def test_without_any_failure_there_is_nothing_to_learn(spark, observations, trained):
    with pytest.raises(TrainingError, match=r"comp4 fails within 48 h of any of the 240 .*\[2015-01-03, 2015-01-23\)"):
        trained(observations, labels_of(spark, COLUMNS, never=COMPONENTS))


def test_labels_of_another_horizon_make_no_model(spark, observations, trained):
    with pytest.raises(TrainingError, match=r"no observation in .* has a known outcome 48 h ahead"):
        trained(observations, labels_of(spark, COLUMNS, horizon_hours=24))


def test_the_toy_fleet_begins_where_the_first_window_does():
    assert WINDOWS.train.start == FIRST_DAY + dt.timedelta(days=2)
