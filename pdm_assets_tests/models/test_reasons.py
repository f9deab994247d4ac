"""Reasons: what a tree of the toy fleet uses is what it is said to alert for, and in a mechanic's words."""

import dataclasses

import pytest
from pyspark.sql import functions as F

from pdm_assets.models.fitting import FitSpec
from pdm_assets.models.reasons import MACHINE_MODEL, NUMERIC_SIGNS, Share, in_words, shares
from pdm_assets.models.rules import Healthy
from pdm_assets.models.scoring import score
from pdm_assets.models.served import SavedPipeline
from pdm_assets.models.table import WEIGHT, label_of
from pdm_assets.schemas.features import NUMERIC_FEATURES
from pdm_assets_tests.builders import day, utc
from pdm_assets_tests.models.fleet import fleet_columns, observations_of

COLUMNS = fleet_columns()


def test_every_numeric_feature_belongs_to_exactly_one_sign():
    assert sorted(name for names in NUMERIC_SIGNS.values() for name in names) == sorted(NUMERIC_FEATURES)


def test_the_error_that_foretells_the_failure_carries_the_whole_probability(spark, tree):
    rows = observations_of(spark, COLUMNS).where("error2_count_24h > 0 AND machine_id = 1 AND observed_at < '2015-01-12'")
    found = shares(rows.toArrow().to_pylist(), tree.pipeline, tree.card)
    scored = score(rows, tree.pipeline, tree.card).toArrow().to_pylist()
    risks = {(r["machine_id"], r["observed_at"], r["component"]): r["probability"] for r in scored}
    assert set(found) == set(risks)
    assert len(found) == 4 * len(rows.collect())
    for (machine, at, component), its in found.items():
        assert {share.sign for share in its} == {*NUMERIC_SIGNS, MACHINE_MODEL}
        assert its == sorted(its, key=lambda share: -share.lost)
        if component == "comp2":
            now = risks[machine, at, component]
            first, *others = its
            assert (first.sign, first.lost) == ("error2", pytest.approx(now, abs=0.05))
            assert all(share.lost == pytest.approx(0, abs=1e-9) for share in others)


def test_a_machine_model_that_carries_the_probability_is_a_sign(spark, tree, fitter, tmp_path):
    """Machines of model1 fail of comp1, of model2 none: what the model learns is the machine model alone."""
    rows = observations_of(spark, COLUMNS)
    fails = (F.col("machine_model") == "model1").cast("double")
    table = rows.withColumns({label_of("comp1"): fails, WEIGHT: F.lit(1.0)}).toArrow()
    spec = FitSpec(("comp1",), tree.card.features, "decision_tree", {}, seed=1)
    pipeline = SavedPipeline(fitter.fit(table, spec, tmp_path / "pipeline").folder)
    others = {"comp2": 0.0, "comp3": 0.0, "comp4": 0.0}
    card = dataclasses.replace(tree.card, calibration={}, constant_probabilities=others)
    found = shares(rows.where("observed_at < '2015-01-02'").toArrow().to_pylist(), pipeline, card)
    first = {machine: its[0] for (machine, _, component), its in found.items() if component == "comp1"}
    assert {machine: (share.sign, share.lost) for machine, share in first.items() if machine % 2 == 0} == {
        machine: (MACHINE_MODEL, 1.0) for machine in (0, 2, 4)
    }
    assert {share.lost for machine, share in first.items() if machine % 2} == {0.0}


@pytest.fixture
def card(tree):
    return dataclasses.replace(tree.card, healthy={"vibration": Healthy(40.0, 1.4)})


FEATURES = {
    "vibration_mean_12h": 48.0,  # 8 over a spread of 1.4
    "vibration_mean_24h": 50.3,  # 10.3 over one of 1.4 / sqrt(2) = 0.99: the farthest
    "vibration_mean_36h": 44.0,
    "comp4_days_since_replacement": 77.4,
    "comp3_days_since_replacement": None,
    "age_years": 18,
    "machine_model": "model1",
}
ERRORS = {"error5": utc("2026-03-02 06:00"), "error1": utc("2026-03-01 18:00")}


def said(*signs, probability=0.8, today="2026-03-02"):
    def words(card):
        return in_words([Share(*sign) for sign in signs], probability, FEATURES, ERRORS, card, day(today))

    return words


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (said(("vibration", 0.5)), ["vibration 24 h mean 50.3, normal 40.0 ± 1.0"]),
        (said(("error5", 0.5)), ["error5 at 06:00 today"]),
        (said(("error1", 0.5)), ["error1 at 18:00 yesterday"]),
        (said(("error5", 0.5), today="2026-03-04"), ["error5 at 06:00 on 2026-03-02"]),
        (said(("error2", 0.5)), ["error2 in the last 24 h"]),
        (said(("comp4", 0.5)), ["comp4 is 77 days old"]),
        (said(("comp3", 0.5)), ["comp3 was never replaced"]),
        (said(("age_years", 0.5)), ["the machine is 18 years old"]),
        (said(("machine_model", 0.5)), ["machine model model1"]),
        # a channel that training knew nothing of
        (said(("volt", 0.5)), ["volt of the last 36 h"]),
    ],
)
def test_a_sign_is_said_as_a_mechanic_would(words, expected, card, monkeypatch):
    monkeypatch.setitem(FEATURES, "volt_mean_12h", None)
    monkeypatch.setitem(FEATURES, "volt_mean_24h", None)
    monkeypatch.setitem(FEATURES, "volt_mean_36h", None)
    assert words(card) == expected


def test_of_a_channel_that_never_varied_in_training_the_farthest_mean_is_said(card):
    steady = dataclasses.replace(card, healthy={"vibration": Healthy(40.0, 0.0)})
    assert said(("vibration", 0.5))(steady) == ["vibration 24 h mean 50.3, normal 40.0 ± 0.0"]


@pytest.mark.parametrize(
    ("mean", "scatter", "expected"),
    [
        # the mean of 12 h strays by 1.4, single readings by 4.8, and their scatter over 12 h by 4.8 / sqrt(24) = 1.0
        (41.0, 9.1, "vibration 12 h scatter 9.1, normal 4.8"),
        (38.0, 1.2, "vibration 12 h scatter 1.2, normal 4.8"),
        (42.9, 9.1, "vibration 12 h mean 42.9, normal 40.0 ± 1.4"),  # 2.07 spreads away: it is remarkable itself
        (42.0, 5.5, "vibration 12 h mean 42.0, normal 40.0 ± 1.4"),  # neither is: the farther of the two
        (42.0, None, "vibration 12 h mean 42.0, normal 40.0 ± 1.4"),
    ],
)
def test_where_no_mean_is_remarkable_and_the_scatter_is_the_scatter_is_said(card, mean, scatter, expected):
    unknown = {f"vibration_{statistic}_{hours}h": None for statistic in ("mean", "std") for hours in (24, 36)}
    features = {**unknown, "vibration_mean_12h": mean, "vibration_std_12h": scatter}
    assert in_words([Share("vibration", 0.5)], 0.8, features, {}, card, day("2026-03-02")) == [expected]


def test_three_reasons_at_most_and_none_that_hardly_counts(card):
    five = said(("error5", 0.7), ("vibration", 0.4), ("comp4", 0.09), ("age_years", 0.08), ("error1", 0.079))(card)
    assert five == ["error5 at 06:00 today", "vibration 24 h mean 50.3, normal 40.0 ± 1.0", "comp4 is 77 days old"]
    assert said(("error5", 0.079))(card) == ["no single sign: several together"]
    assert said(("comp4", 0.09), ("age_years", 0.081), ("error1", 0.079))(card) == [
        "comp4 is 77 days old",
        "the machine is 18 years old",
    ]
