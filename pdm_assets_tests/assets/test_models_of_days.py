"""Which model is in force on which day, what it scores, and the scoring of a range on request."""

import dataclasses
import datetime as dt
from pathlib import Path

import dagster as dg
import pytest
from deltalake import DeltaTable
from pyspark.sql import functions as F

from pdm_assets.assets import backtest, scoring, training
from pdm_assets.automation.jobs import score_range
from pdm_assets.models.promotion import Condition, Verdict
from pdm_assets.models.training import TrainingError
from pdm_assets.resources.model_store import ModelStore
from pdm_assets.schemas.features import (
    BACKTEST,
    COMPONENT_FAILURES,
    COMPONENT_RISK,
    DECISIONS,
    OBSERVATIONS,
    READINGS_COUNT,
    REGISTRY,
    WORKLIST,
)
from pdm_assets.schemas.raw import COMPONENTS, MAINTENANCE
from pdm_assets.schemas.tables import TABLES
from pdm_assets.settings import HYPERPARAMETERS, Settings
from pdm_assets_tests.builders import day
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
from pdm_assets_tests.plant import Plant, check, failure, metadata

EVERY_WEEK = Settings(train_days=5, calibration_days=3, test_days=3, retrain_every_days=7)
# two days of look-back, then 5 + 2 + 3 + 2 + 3 + 2 days of windows and gaps
WORKS_FROM = FIRST_DAY + dt.timedelta(days=19)

FORCE = {"ops": {"models__failure_model": {"config": {"force": True}}}}
SILENT_DAY = CUTOFF + dt.timedelta(days=3)  # of machine 4: it has less than half of the readings then


@pytest.fixture(scope="module")
def plant(tmp_path_factory, engine, spark):
    """A plant with the features of the toy fleet in its lake."""
    plant = Plant(tmp_path_factory.mktemp("plant"), engine)
    columns = fleet_columns()
    for n, (machine, at) in enumerate(zip(columns["machine_id"], columns["observed_at"], strict=True)):
        if machine == 4 and at.date() == SILENT_DAY:
            columns[READINGS_COUNT][n] = 17
    rows = observations_of(spark, columns)
    dated = rows.withColumn("date", F.to_date("observed_at"))
    plant.lake.replace_days(OBSERVATIONS, dated, FIRST_DAY, FIRST_DAY + dt.timedelta(days=DAYS), {})
    outcomes = labels_of(spark, columns).withColumn("date", F.date_add(F.to_date("observed_at"), 2))
    plant.lake.replace_days(COMPONENT_FAILURES, outcomes, FIRST_DAY, FIRST_DAY + dt.timedelta(days=DAYS + 2), {})
    for table in ("raw/errors", "raw/failures", "raw/maintenance"):
        plant.lake.ensure(TABLES[table])
    return plant


@pytest.fixture
def without_models(plant, spark):
    """The registry and its decisions emptied."""
    for table in (REGISTRY, DECISIONS):
        if plant.lake.exists(table):
            DeltaTable(plant.lake.location(table)).delete()


class Gate:
    """What a test tells the gate and sees of it."""

    def __init__(self) -> None:
        self.refused: set[dt.date] = set()  # models of these days are
        self.weighed: list[tuple[str, str | None]] = []  # challengers and their incumbents
        self.meanwhile = lambda: None  # what another process does while the gate weighs


@pytest.fixture
def gate(plant, spark, without_models, tree, monkeypatch):
    """Trainings without training: what is asked here is when they happen, and what becomes of the model."""
    gate = Gate()

    def save(store, trained, pictures, run_id):
        register(plant, spark, trained.card.version, trained.card.cutoff)

    def weigh(trained, incumbent):
        gate.weighed.append((trained.card.version, incumbent))
        gate.meanwhile()
        is_good = trained.card.cutoff not in gate.refused
        return Verdict(is_good, (Condition("cheap enough", is_good, "it costs a fortune"),))

    def trained_for(lake, on, **_):
        return tree._replace(card=dataclasses.replace(tree.card, version=f"model-{on}", cutoff=on))

    monkeypatch.setattr(training, "SETTINGS", EVERY_WEEK)
    monkeypatch.setattr(training, "trained_for", trained_for)
    monkeypatch.setattr("pdm_assets.models.training.weigh", weigh)
    monkeypatch.setattr("pdm_assets.models.pictures.pictures_of", lambda _: {})
    monkeypatch.setattr("pdm_assets.models.model_page.page", lambda *_: "")
    monkeypatch.setattr(ModelStore, "save", save)
    monkeypatch.setattr(ModelStore, "load", lambda _, version: version)
    return gate


def register(plant, spark, version, cutoff):
    row = (version, "random_forest", 48, dt.datetime.combine(cutoff, dt.time(), dt.UTC), dt.datetime.now(dt.UTC), "{}")
    plant.lake.append(REGISTRY, spark.createDataFrame([row], REGISTRY.struct), {})


def in_force(plant, first, last):
    return {
        row["date"]: (row["model_version"], row["status"])
        for row in plant.lake.rows(TABLES["models/failure_model"], first, last)
    }


def test_a_range_trains_as_it_would_have_happened_and_never_once_a_day(plant, gate):
    last = WORKS_FROM + dt.timedelta(days=10)
    assert plant.run(FIRST_DAY.isoformat(), last.isoformat(), tables="failure_model").success
    found = in_force(plant, FIRST_DAY, last + dt.timedelta(days=1))
    week_later = WORKS_FROM + dt.timedelta(days=7)
    assert [on for on, (_, status) in sorted(found.items()) if status == "trained"] == [WORKS_FROM, week_later]
    assert all(version is None for on, (version, _) in found.items() if on < WORKS_FROM)
    assert all(version == f"model-{WORKS_FROM}" for on, (version, _) in found.items() if WORKS_FROM <= on < week_later)
    # once more, an old day: nothing is due, and a model that came later is none for it
    next_day = (WORKS_FROM + dt.timedelta(days=1)).isoformat()
    again = metadata(plant.run(next_day, tables="failure_model"), "models/failure_model")
    assert again[next_day]["model_version"] == f"model-{WORKS_FROM}"
    assert len(plant.store.registered()) == 2


def test_forced_it_trains_for_the_last_day_and_says_so_when_it_can_not(plant, gate):
    plant.run(WORKS_FROM.isoformat(), tables="failure_model")
    forced = WORKS_FROM + dt.timedelta(days=2)
    assert plant.run(WORKS_FROM.isoformat(), forced.isoformat(), tables="failure_model", run_config=FORCE).success
    found = in_force(plant, WORKS_FROM, forced + dt.timedelta(days=1))
    assert [version for version, _ in found.values()].count(f"model-{forced}") == 1
    assert found[forced] == (f"model-{forced}", "trained")
    too_early = plant.run("2015-01-05", tables="failure_model", run_config=FORCE)
    assert f"A first model works from {WORKS_FROM} on" in failure(too_early)


def test_a_training_makes_the_model_type_that_it_is_asked_for(plant, without_models, monkeypatch):
    asked = []

    def train(*_, model_type, **__):
        asked.append(model_type)
        raise TrainingError("this is all the test wants to know")

    monkeypatch.setattr(training, "SETTINGS", EVERY_WEEK)
    monkeypatch.setattr("pdm_assets.models.training.train", train)
    for table in training.TRAINED_ON:
        plant.lake.ensure(table)
    for config in ({}, {"model_type": "decision_tree"}):
        forced = {"ops": {"models__failure_model": {"config": {"force": True, **config}}}}
        text = failure(plant.run(WORKS_FROM.isoformat(), tables="failure_model", run_config=forced))
        assert "this is all the test wants to know" in text
    assert asked == ["random_forest", "decision_tree"]


def test_a_refused_challenger_is_kept_and_not_tried_again_the_next_day(plant, gate):
    week_later, last = WORKS_FROM + dt.timedelta(days=7), WORKS_FROM + dt.timedelta(days=14)
    gate.refused.add(week_later)
    assert plant.run(WORKS_FROM.isoformat(), last.isoformat(), tables="failure_model").success
    found = plant.lake.rows(TABLES["models/failure_model"], WORKS_FROM, last + dt.timedelta(days=1))
    versions = {row["date"]: row["model_version"] for row in found}
    assert set(versions.values()) == {f"model-{WORKS_FROM}", f"model-{last}"}
    assert versions[last - dt.timedelta(days=1)] == f"model-{WORKS_FROM}"
    said = {row["date"]: row["detail"] for row in found}
    refusal = f"model-{week_later} was refused: cheap enough: it costs a fortune"
    assert said[week_later] == refusal
    assert said[week_later + dt.timedelta(days=1)] == refusal
    assert [m.version for m in plant.store.registered()] == [f"model-{day}" for day in (WORKS_FROM, week_later, last)]


def test_a_first_model_that_is_refused_leaves_no_model_in_force_and_says_how_to_get_one(plant, gate):
    gate.refused.add(WORKS_FROM)
    day_after = WORKS_FROM + dt.timedelta(days=1)
    text = failure(plant.run(WORKS_FROM.isoformat(), day_after.isoformat(), tables="failure_model component_risk"))
    assert "no model is in force" in text
    assert f"model-{WORKS_FROM} was refused: cheap enough" in text
    assert "`pdm-assets models promote VERSION`" in text
    assert in_force(plant, WORKS_FROM, day_after) == {WORKS_FROM: (None, "refused")}


def test_a_promotion_holds_from_its_day_on_until_the_next_and_never_for_a_day_the_model_knew(plant, gate):
    first, second = WORKS_FROM, WORKS_FROM + dt.timedelta(days=7)
    assert plant.run(first.isoformat(), second.isoformat(), tables="failure_model").success
    back = second + dt.timedelta(days=3)
    yes = Verdict(True, (Condition("asked for by a user", True, "the second sees ghosts"),))
    plant.store.decide(f"model-{first}", yes, back, "a user")
    plant.store.decide(f"model-{second}", yes, first, "a user who promotes it for days that it knew")
    models, decisions = plant.store.registered(), plant.store.decisions()

    def on(day):
        model = plant.store.in_force(day, models, decisions)
        return model and model.version

    assert on(first - dt.timedelta(days=1)) is None
    assert on(first) == on(second - dt.timedelta(days=1)) == f"model-{first}"
    assert on(second) == on(back - dt.timedelta(days=1)) == f"model-{second}"
    assert on(back) == on(back + dt.timedelta(days=100)) == f"model-{first}"


@pytest.fixture
def with_scores(plant, spark):
    """Days that have scores already."""
    first, last = WORKS_FROM, WORKS_FROM + dt.timedelta(days=14)

    def score(*days):
        rows = [
            (1, dt.datetime.combine(on, dt.time(6), dt.UTC), "comp1", 0.1, 0.5, False, "old", dt.datetime.now(dt.UTC), 1, on)
            for on in days
        ]
        plant.lake.replace_days(COMPONENT_RISK, spark.createDataFrame(rows, COMPONENT_RISK.struct), first, last, {})

    yield score
    plant.lake.replace_days(COMPONENT_RISK, None, first, last, {})


def test_a_model_promoted_for_a_day_that_is_scored_is_in_force_from_the_next_on(plant, gate, with_scores):
    first, scored_day = WORKS_FROM, WORKS_FROM + dt.timedelta(days=3)
    next_day = scored_day + dt.timedelta(days=1)
    with_scores(first)
    # a first model: none is there that could score the day again
    assert plant.run(first.isoformat(), tables="failure_model").success
    assert in_force(plant, first, first + dt.timedelta(days=1)) == {first: (f"model-{first}", "trained")}
    with_scores(scored_day)
    assert plant.run(scored_day.isoformat(), tables="failure_model", run_config=FORCE).success
    (row,) = plant.lake.rows(TABLES["models/failure_model"], scored_day, next_day)
    assert (row["model_version"], row["status"]) == (f"model-{first}", "carried forward")
    said = f"model-{scored_day} is promoted, in force from {next_day} on"
    assert row["detail"] == f"{said}: {scored_day} has scores already"
    # an hour later, and the day after
    assert plant.run(scored_day.isoformat(), next_day.isoformat(), tables="failure_model").success
    later = plant.lake.rows(TABLES["models/failure_model"], scored_day, next_day + dt.timedelta(days=1))
    assert {row["date"]: (row["model_version"], row["detail"]) for row in later} == {
        scored_day: (f"model-{first}", said),
        next_day: (f"model-{scored_day}", "1 days old"),
    }


def test_a_challenger_is_weighed_against_what_it_would_replace_when_the_gate_decides(plant, gate, with_scores, spark):
    first, scored_day = WORKS_FROM, WORKS_FROM + dt.timedelta(days=3)
    assert plant.run(first.isoformat(), tables="failure_model").success
    with_scores(scored_day)
    register(plant, spark, "other", first)

    def another_is_promoted():
        gate.meanwhile = lambda: None
        yes = Verdict(True, (Condition("asked for by a user", True, ""),))
        plant.store.decide("other", yes, scored_day + dt.timedelta(days=1), "a user")

    gate.weighed.clear()
    gate.meanwhile = another_is_promoted
    assert plant.run(scored_day.isoformat(), tables="failure_model", run_config=FORCE).success
    challenger = f"model-{scored_day}"
    assert gate.weighed == [(challenger, f"model-{first}"), (challenger, "other")]
    assert [d.version for d in plant.store.decisions()] == [f"model-{first}", "other", challenger]


def test_a_training_that_fails_is_not_tried_again_on_each_day_of_a_range(plant, gate, monkeypatch):
    tried = []

    def trained_for(lake, on, **_):
        tried.append(on)
        raise TrainingError("nothing fails")

    monkeypatch.setattr(training, "trained_for", trained_for)
    last = WORKS_FROM + dt.timedelta(days=9)
    day_before, week_later = WORKS_FROM - dt.timedelta(days=1), WORKS_FROM + dt.timedelta(days=7)
    assert plant.run(day_before.isoformat(), last.isoformat(), tables="failure_model").success
    assert tried == [WORKS_FROM, week_later]
    said = {
        row["date"]: row["detail"]
        for row in plant.lake.rows(TABLES["models/failure_model"], day_before, last + dt.timedelta(days=1))
    }
    assert said[WORKS_FROM] == said[week_later] == "nothing fails"
    assert said[WORKS_FROM + dt.timedelta(days=1)] == (
        f"the training for {WORKS_FROM} failed and is not tried again so soon: nothing fails"
    )
    # forced, it is
    assert "nothing fails" in failure(plant.run(last.isoformat(), tables="failure_model", run_config=FORCE))
    assert tried[2:] == [last]


def test_a_version_that_was_registered_but_not_decided_on_is_trained_again(plant, gate, spark):
    assert plant.run(WORKS_FROM.isoformat(), tables="failure_model").success
    DeltaTable(plant.lake.location(DECISIONS)).delete()  # as if the run had died between the two
    assert plant.run(WORKS_FROM.isoformat(), tables="failure_model").success
    assert in_force(plant, WORKS_FROM, WORKS_FROM + dt.timedelta(days=1))[WORKS_FROM] == (f"model-{WORKS_FROM}", "trained")


@pytest.fixture(scope="module")
def model(plant, tree):
    """A tree that was really trained."""
    plant.store.save(tree, {}, "a-run")
    plant.store.decide("tree", Verdict(True, (Condition("good enough", True, "for a test"),)), CUTOFF, "the test")
    return tree


def scored(plant, **config):
    first = CUTOFF.isoformat()
    parameters = {"start_date": first, "to_date": first, "model": "decision_tree", "results_table": "trial", **config}
    return score_range.execute_in_process(
        run_config={"ops": {"score_days": {"config": parameters}}}, resources=plant.resources, raise_on_error=False
    )


def test_a_day_is_scored_and_a_range_on_request_gives_the_same_without_touching_it(plant, model, monkeypatch):
    monkeypatch.setattr(training, "SETTINGS", SETTINGS)
    result = plant.run(CUTOFF.isoformat(), tables="failure_model component_risk")
    assert result.success
    said = metadata(result, "scores/component_risk")[CUTOFF.isoformat()]
    assert said["dagster/partition_row_count"] == MACHINES * 2 * len(COMPONENTS)
    assert said["model_versions"] == "tree"
    assert check(result, "scores/component_risk", "every_observation_has_a_score").passed
    version = plant.lake.version(COMPONENT_RISK)

    last = CUTOFF + dt.timedelta(days=1)
    assert scored(plant, to_date=last.isoformat()).success
    trial = dataclasses.replace(COMPONENT_RISK, key="results/trial")
    columns = ["machine_id", "observed_at", "component", "probability", "threshold", "is_alert", "model_version"]
    daily = plant.lake.rows(COMPONENT_RISK, CUTOFF, last, columns)
    asked = plant.lake.rows(trial, CUTOFF, last, columns)
    order = [sorted(tuple(row.values()) for row in rows) for rows in (daily, asked)]
    assert order[0] == order[1]
    assert len(plant.lake.rows(trial)) == 2 * len(daily)
    assert plant.lake.version(COMPONENT_RISK) == version


def test_a_machine_that_was_not_heard_enough_is_not_scored_and_named(plant, model, monkeypatch):
    monkeypatch.setattr(training, "SETTINGS", SETTINGS)
    day_before = (SILENT_DAY - dt.timedelta(days=1)).isoformat()
    result = plant.run(day_before, SILENT_DAY.isoformat(), tables="failure_model component_risk")
    rows = plant.lake.rows(COMPONENT_RISK, SILENT_DAY, SILENT_DAY + dt.timedelta(days=1), ["machine_id"])
    assert len(rows) == (MACHINES - 1) * 2 * len(COMPONENTS)
    assert 4 not in {row["machine_id"] for row in rows}
    found = check(result, "scores/component_risk", "every_observation_has_a_score")
    assert not found.passed
    assert "machines 4: these were not scored" in found.description
    assert (found.metadata["observations"].value, found.metadata["not_scored"].value) == (MACHINES * 2 * 2, 2)


def test_scores_that_are_missing_for_no_reason_are_an_error_that_names_machines_and_days(plant, model, monkeypatch):
    monkeypatch.setattr(training, "SETTINGS", SETTINGS)
    last = SILENT_DAY + dt.timedelta(days=1)
    at_06 = dt.datetime.combine(SILENT_DAY, dt.time(6), dt.UTC)
    risks = scoring.risks

    def most_risks(*arguments):
        one_of_four = (F.col("machine_id") == 2) & (F.col("observed_at") == F.lit(at_06)) & (F.col("component") == "comp3")
        return risks(*arguments).where(~one_of_four & (F.col("date") < F.lit(last)))  # and none of the last day

    monkeypatch.setattr(scoring, "risks", most_risks)
    result = plant.run(SILENT_DAY.isoformat(), last.isoformat(), tables="failure_model component_risk")
    found = check(result, "scores/component_risk", "every_observation_has_a_score")
    assert not found.passed
    assert found.severity == dg.AssetCheckSeverity.ERROR
    assert "less than 18 h of readings of machines 4: these were not scored" in found.description
    lost = "not every component is scored of machines 0, 1, 2, 3, 4, 5, which were heard"
    assert f"{lost}: materialize scores/component_risk of {SILENT_DAY} to {last} again" in found.description
    # two of the silent machine, one of machine 2, all of the last day
    assert (found.metadata["observations"].value, found.metadata["not_scored"].value) == (MACHINES * 2 * 2, 3 + MACHINES * 2)


def test_the_worklist_has_a_line_for_each_open_alarm_with_its_reason_and_its_page(plant, model, monkeypatch):
    monkeypatch.setattr(training, "SETTINGS", SETTINGS)
    last = CUTOFF + dt.timedelta(days=1)
    result = plant.run(CUTOFF.isoformat(), last.isoformat(), tables="failure_model component_risk worklist/maintenance")
    assert result.success
    alerts = [row for row in plant.lake.rows(COMPONENT_RISK, CUTOFF, last + dt.timedelta(days=1)) if row["is_alert"]]
    began: dict[tuple, tuple] = {}  # first and latest alert of each episode; after more than a day it is another
    for row in sorted(alerts, key=lambda row: row["observed_at"]):
        key, at = (row["machine_id"], row["component"]), row["observed_at"]
        first, latest = began.get(key, (at, at))
        began[key] = (first if at - latest <= dt.timedelta(days=1) else at, at)
    lines = plant.lake.rows(WORKLIST, last, last + dt.timedelta(days=1))
    # nothing is repaired on the toy fleet, and two days are less than the horizon: every alarm is open on the second day
    assert {(line["machine_id"], line["component"]): line["first_alerted_at"] for line in lines} == {
        key: first for key, (first, _) in began.items()
    }
    assert sorted(line["rank"] for line in lines) == list(range(1, len(lines) + 1))
    assert all(line["is_within_capacity"] == (line["rank"] <= SETTINGS.crew_visits_a_day) for line in lines)
    savings = [line["expected_saving"] for line in sorted(lines, key=lambda line: line["rank"])]
    assert savings == sorted(savings, reverse=True)
    for line in lines:
        if line["probability"] >= line["threshold"]:
            assert line["reasons"] == f"{line['component'].replace('comp', 'error')} in the last 24 h"
    the_day_before = {line["episode_id"] for line in plant.lake.rows(WORKLIST, CUTOFF, last)}
    going_on = {line["episode_id"] for line in lines if line["first_alerted_at"].date() == CUTOFF}
    assert going_on
    assert going_on <= the_day_before

    said = metadata(result, "worklist/maintenance")[last.isoformat()]
    assert said["open_alarms"] == len(lines)
    assert said["page"].endswith(f"reports/worklist/{last}.html")
    html = Path(said["page"]).read_text()
    assert all(line["episode_id"] in html for line in lines)
    assert len(Path(said["csv"]).read_text().splitlines()) == len(lines) + 1


def test_a_repair_closes_its_alarm_on_the_day_that_it_is_known(plant, model, spark, monkeypatch):
    monkeypatch.setattr(training, "SETTINGS", SETTINGS)
    last = CUTOFF + dt.timedelta(days=1)
    tables = "failure_model component_risk worklist/maintenance"
    assert plant.run(CUTOFF.isoformat(), last.isoformat(), tables=tables).success
    before = plant.lake.rows(WORKLIST, last, last + dt.timedelta(days=1))
    chosen = next(line for line in before if line["first_alerted_at"].date() == CUTOFF)
    repaired_at = dt.datetime.combine(last, dt.time(20), dt.UTC)
    repair = [(chosen["machine_id"], repaired_at, chosen["component"], last)]
    plant.lake.replace_days(
        MAINTENANCE, spark.createDataFrame(repair, MAINTENANCE.struct), last, last + dt.timedelta(days=1), {}
    )
    assert plant.run(CUTOFF.isoformat(), last.isoformat(), tables="worklist/maintenance").success
    after = plant.lake.rows(WORKLIST, last, last + dt.timedelta(days=1))
    assert {line["episode_id"] for line in after} == {line["episode_id"] for line in before} - {chosen["episode_id"]}
    the_day_before = plant.lake.rows(WORKLIST, CUTOFF, last)
    assert chosen["episode_id"] in {line["episode_id"] for line in the_day_before}
    plant.lake.replace_days(MAINTENANCE, None, last, last + dt.timedelta(days=1), {})


def test_a_damaged_champion_is_told_before_a_challenger_is_trained(plant, model, monkeypatch):
    monkeypatch.setattr(training, "SETTINGS", SETTINGS)
    registered, card = plant.store.registered(), plant.store.folder("tree") / "card.json"
    whole = card.read_text()
    card.write_text("{}")
    try:
        text = failure(plant.run((CUTOFF + dt.timedelta(days=20)).isoformat(), tables="failure_model", run_config=FORCE))
    finally:
        card.write_text(whole)
    assert "card.json is not what was written: its checksum differs" in text
    assert "put another version in force: `pdm-assets models promote VERSION`" in text
    assert plant.store.registered() == registered


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"start_date": "2015-02-10", "to_date": "2015-02-10", "model": "tree"}, "score from its cutoff on"),
        ({"start_date": "2015-02-10", "to_date": "2015-02-10"}, "no decision_tree knew nothing of 2015-02-10"),
        ({"model": "oak"}, "no model 'oak'. Registered: "),
        ({"results_table": "../scores"}, "take a name of lower-case letters"),
        ({"to_date": "2016-01-01"}, "features/observations has no rows for"),
        ({"to_date": "2015-01-01"}, "is before start_date"),
        ({"start_date": "yesterday"}, "write YYYY-MM-DD"),
    ],
)
def test_a_range_that_can_not_be_scored_says_why(plant, model, config, said):
    assert said in failure(scored(plant, **config))


def test_the_daily_and_the_weekly_schedule_ask_for_their_day():
    from pdm_assets.automation import daily_scoring, weekly_training
    from pdm_assets.definitions import defs

    at = dt.datetime(2026, 11, 23, 3, tzinfo=dt.UTC)
    context = dg.build_schedule_context(scheduled_execution_time=at, repository_def=defs.get_repository_def())
    (daily,) = daily_scoring.evaluate_tick(context).run_requests
    assert daily.partition_key == "2026-11-22"
    (weekly,) = weekly_training.evaluate_tick(context).run_requests
    assert weekly.partition_key == "2026-11-23"
    assert dg.validate_run_config(defs.resolve_job_def("train_model"), weekly.run_config)
    assert day(weekly.partition_key) == at.date()


@pytest.mark.slow
def test_the_backtest_has_a_fold_each_month_and_the_report_of_a_later_model_shows_it(plant, monkeypatch):
    tree = dataclasses.replace(SETTINGS, model_type="decision_tree", retrain_every_days=1)
    monkeypatch.setattr(backtest, "SETTINGS", tree)
    quick = {kind: HYPERPARAMETERS[kind] for kind in ("decision_tree", "logistic_regression")}  # the forests take long to grow
    monkeypatch.setattr(backtest, "HYPERPARAMETERS", quick)
    every_type = {"ops": {"models__backtest": {"config": {"all_types": True}}}}
    result = plant.run("2015-01-31", "2015-03-02", tables="models/backtest", run_config=every_type)
    rows = plant.lake.rows(BACKTEST)
    assert {(row["date"], row["model_type"], row["component"]) for row in rows} == {
        (day("2015-03-01"), kind, component) for kind in quick for component in (*COMPONENTS, "pooled")
    }
    # the test window is the eight days before the horizon before the first of March
    assert {row["observations"] for row in rows} == {MACHINES * 8 * 2}
    said = metadata(result, "models/backtest")["2015-03-01"]
    assert said["skipped"].startswith("2015-02-01: 7 days are left to learn from before 2015-02-01, it takes 20")
    assert "mean (worst) of 1 folds" in said["mean_and_worst_fold"]
    by_day = metadata(result, "models/backtest")
    assert [on for on, its in sorted(by_day.items()) if "over_time" in its] == ["2015-03-01", "2015-03-02"]  # fold, last day
    assert said["over_time"].startswith("![picture](data:image/png;base64,")

    monkeypatch.setattr(training, "SETTINGS", tree)
    result = plant.run("2015-03-02", tables="failure_model")
    said = next(found for found in metadata(result, "models/failure_model").values() if "report" in found)
    html = Path(said["report"]).read_text()
    assert "Month by month" in html
    assert html.count("<img ") == 6
    folder = plant.store.whole(said["trained_version"])
    assert {path.stem for path in folder.glob("*.png")} <= said.keys()


def test_days_without_the_first_of_a_month_have_no_fold_and_say_so(plant):
    result = plant.run("2015-02-02", "2015-02-03", tables="models/backtest")
    assert "first of each month" in metadata(result, "models/backtest")["2015-02-03"]["skipped"]
