import dataclasses
import datetime as dt
import json

from pdm_assets.models.calibration import Platt
from pdm_assets.models.card import ModelCard, WindowCounts
from pdm_assets.models.drift import Reference
from pdm_assets.models.evaluation import Capacity, EventReport
from pdm_assets.models.events import EventMetrics
from pdm_assets.models.metrics import Metrics
from pdm_assets.models.rules import Healthy
from pdm_assets.models.windows import Window

METRICS = Metrics(
    rows=4,
    positives=1,
    average_precision=0.5,
    roc_auc=None,
    brier=0.1,
    brier_skill=-0.5,
    calibration_error=0.01,
    calibration_slope=0.9,
    calibration_intercept=-0.1,
    alerts_said=None,
    lift=None,
    observation_precision=None,
    observation_recall=0.0,
    observation_f1=0.0,
    true_alerts=0,
    false_alerts=0,
    missed=1,
    true_quiet=3,
)
EVENTS = EventMetrics(
    failures=3,
    caught=2,
    event_recall=2 / 3,
    lead_median_hours=24.0,
    lead_p10_hours=12.0,
    lead_24h_share=0.5,
    true_episodes=2,
    false_episodes=1,
    alarm_precision=2 / 3,
    false_alarms_per_machine_month=0.05,
    cost=14_500.0,
)
REPORT = EventReport(
    observed=EVENTS,
    intervals={"event_recall": (0.5, 1.0)},
    delivered={"daily files": EVENTS},
    rules={"own error": EVENTS},
    never_cost=30_000.0,
    calendar_days={"comp1": 45},
    calendar_cost=25_000.0,
    saving=1 - 14_500 / 25_000,
    alarmed_machines_per_day=0.4,
    recall_by_lead={"0-6 h": None, "6-24 h": 0.75},
    leads_hours=(12.0, 36.0),
)
CARD = ModelCard(
    version="2015-12-01-random_forest-1",
    model_type="random_forest",
    horizon_hours=48,
    cutoff=dt.date(2015, 12, 1),
    windows={
        "train": WindowCounts(Window(dt.date(2015, 1, 3), dt.date(2015, 9, 30)), 54_000, {"comp1": 500}),
        "test": WindowCounts(Window(dt.date(2015, 10, 30), dt.date(2015, 11, 29)), 4, {"comp1": 1}),
    },
    rows_fitted=54_000,
    one_healthy_in=1,
    one_failing_in=1,
    parameters={"numTrees": 40, "featureSubsetStrategy": "onethird", "stepSize": 0.1},
    seed=7,
    features=("volt_mean_24h", "age_years", "machine_model"),
    calibration={"comp1": Platt(0.9, -0.1)},
    thresholds={"comp1": 0.25, "comp2": 0.5},
    constant_probabilities={"comp3": 1 / 54_002},
    metrics={"test": {"comp1": METRICS, "pooled": METRICS}},
    events={"pooled": REPORT},
    capacity=Capacity(10, 0.5, None),
    healthy={"volt": Healthy(170.0, 4.3)},
    usual={"volt_mean_24h": 170.0, "age_years": 10.0},
    references={"volt_mean_24h": Reference((160.0, 180.0), (0.25, 0.5, 0.25), 0.1)},
    importances={
        "comp1": {"volt_mean_24h": 0.75, "age_years": 0.25, "machine_model=model1": 0.0},
        "comp2": {"volt_mean_24h": 0.0, "age_years": 0.75, "machine_model=model1": 0.25},
    },
    data_versions={"features/observations": 12},
    code_version="0.1.0",
    notes=("comp3 never fails in the training window: it is not foretold",),
)


def test_a_card_comes_back_from_json_as_it_was():
    assert ModelCard.from_json(CARD.to_json()) == CARD


def test_numbers_that_are_not_finite_are_null_in_json():
    odd = dataclasses.replace(CARD, thresholds={"comp1": float("nan"), "comp2": float("inf")})
    assert json.loads(odd.to_json())["thresholds"] == {"comp1": None, "comp2": None}


def test_days_are_iso_dates_in_json():
    given = json.loads(CARD.to_json())
    assert given["cutoff"] == "2015-12-01"
    assert given["windows"]["train"]["window"] == {"start": "2015-01-03", "end": "2015-09-30"}


def test_mean_importances_are_over_learnt_components_and_in_order():
    assert list(CARD.mean_importances().items()) == [
        ("age_years", 0.5),
        ("volt_mean_24h", 0.375),
        ("machine_model=model1", 0.125),
    ]
