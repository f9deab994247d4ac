"""Days on which something is wrong, from files to worklist and monitoring: what is made of them, and what a user is told."""

import csv
import dataclasses
import datetime as dt
import shutil
from pathlib import Path

import pytest

from pdm_assets.assets.raw import FEW_REJECTED
from pdm_assets.models.promotion import Condition, Verdict
from pdm_assets.schemas.features import OBSERVATIONS, REALISED_PERFORMANCE
from pdm_assets.schemas.raw import COMPONENTS
from pdm_assets_tests.builders import day, utc
from pdm_assets_tests.models.fleet import CUTOFF
from pdm_assets_tests.plant import Plant, check, failure, metadata

pytestmark = pytest.mark.slow  # two minutes, most of them the week that all of it looks at

DAY_BEFORE, FIRST, LAST = "2015-02-28", "2015-03-01", "2015-03-05"
OLD, NEW = (1, 2, 3, 4, 5, 6), 7
JOINED = "2015-03-03"  # the day of the new machine, of a model that training never saw
SILENT = 2  # its voltmeter breaks on the last day
EVERYTHING = (
    "machines telemetry errors maintenance failures observations component_failures failure_model component_risk "
    "worklist/maintenance realised_performance feature_drift"
)


@pytest.fixture(scope="module")
def plant(tmp_path_factory, engine, tree):
    """A plant whose model in force alerts on whatever it sees."""
    plant = Plant(tmp_path_factory.mktemp("plant"), engine)
    plant.store.save(tree._replace(card=dataclasses.replace(tree.card, thresholds=dict.fromkeys(COMPONENTS, 0.0))), {}, "a-run")
    plant.store.decide("tree", Verdict(True, (Condition("good enough", True, "for a test"),)), CUTOFF, "the test")
    plant.land_fleet(*OLD)
    plant.land("machines", f"machines-{JOINED}.csv", *(f"{machine},model3,18" for machine in OLD), f"{NEW},model9,0")
    plant.land_telemetry(DAY_BEFORE, "2015-03-01", "2015-03-02", machines=OLD)
    plant.land_telemetry(JOINED, "2015-03-04", machines=(*OLD, NEW))
    rows = [f"{LAST} {h:02d}:00:00,{m},{'' if m == SILENT else 170},400,100,40" for m in (*OLD, NEW) for h in range(24)]
    plant.land("telemetry", "last.csv", *rows)
    plant.land("errors", "errors.csv", "2015-03-02 05:00:00,1,error1", "2015-03-02 05:00:00,1,error9")
    return plant


@pytest.fixture(scope="module")
def week(plant):
    assert plant.run(DAY_BEFORE, tables="machines telemetry").success
    result = plant.run(FIRST, LAST, tables=EVERYTHING)
    assert result.success
    return result


def scored(plant, machine):
    return sorted(
        {at for m, at in plant.rows("scores/component_risk", FIRST, LAST, "machine_id", "observed_at") if m == machine}
    )


def test_a_new_machine_of_an_unknown_model_is_named_until_it_was_heard_enough_and_then_scored(plant, week):
    # seven readings at 06:00 of its first day, nineteen at 18:00
    assert scored(plant, NEW)[0] == utc(f"{JOINED} 18:00")
    said = check(week, "scores/component_risk", "every_observation_has_a_score")
    assert not said.passed
    assert f"machines {SILENT}, {NEW}: these were not scored" in said.description
    columns = ("machine_id", "observed_at", "machine_model", "comp1_days_since_replacement", "comp1_never_replaced")
    rows = [row for row in plant.rows("features/observations", JOINED, JOINED, *columns) if row[0] == NEW]
    assert [row[2:] for row in rows] == [("model9", None, True)] * 2
    page = Path(metadata(week, "worklist/maintenance")[JOINED]["csv"])
    lines = [line for line in csv.DictReader(page.read_text().splitlines()) if int(line["machine_id"]) == NEW]
    assert {line["component"] for line in lines} == set(COMPONENTS)
    assert {line["days_since_replacement"] for line in lines} == {""}
    assert page.with_suffix(".html").read_text().count('<td class="number">never</td>') == 4 * (len(OLD) + 1)


def test_an_unknown_error_code_is_in_quarantine_and_the_day_says_so(plant, week):
    (row,) = plant.rows("quarantine/errors", FIRST, LAST, "file", "line", "reason", "text")
    assert row[:2] == ("errors.csv", 3)
    assert row[2].startswith("error_code is error9, valid: error_code IN ('error1', ")
    assert row[3] == "2015-03-02 05:00:00,1,error9"
    said = check(week, "raw/errors", FEW_REJECTED)
    assert not said.passed
    assert said.description.startswith(
        "2015-03-02: 1 of 2 rows are in quarantine/errors, most of them because: error_code is error9"
    )
    counts = plant.rows("features/observations", "2015-03-02", "2015-03-02", "machine_id", "observed_at", "error1_count_24h")
    assert (1, utc("2015-03-02 06:00"), 1) in counts


def test_a_machine_whose_channel_is_missing_is_not_scored_and_the_day_says_which_channel(plant, week):
    # a reading without one of its channels is none: at 18:00 those of eighteen hours are missing
    assert scored(plant, SILENT)[-1] == utc(f"{LAST} 06:00")
    said = check(week, "raw/telemetry", FEW_REJECTED)
    assert said.description == (
        f"{LAST}: 24 of 168 rows are in quarantine/telemetry, most of them because: volt is missing (24)"
    )
    assert check(week, "raw/machines", FEW_REJECTED).passed


def test_with_all_machines_alarmed_every_line_is_ranked_and_the_table_in_the_ui_is_cut(plant, week):
    lines = plant.rows("worklist/maintenance", LAST, LAST, "rank", "is_within_capacity", "machine_id", "component")
    assert len(lines) == 4 * (len(OLD) + 1)
    assert [line[:2] for line in lines] == [(n, n <= 10) for n in range(1, len(lines) + 1)]
    shown = metadata(week, "worklist/maintenance")[LAST]
    assert shown["open_alarms"] == len(lines)
    assert shown["worklist"].endswith("8 more lines are on the page")
    assert Path(shown["page"]).read_text().count("<tr") == 1 + len(lines)


def outcomes(plant):
    rows = plant.rows("labels/component_failures", FIRST, LAST, "date", "machine_id", "component", "fails_within_horizon")
    return {row[:3] for row in rows if row[3]}


def judged(plant, on):
    rows = plant.lake.rows(REALISED_PERFORMANCE, day(on), day(on) + dt.timedelta(days=1))
    (row,) = [row for row in rows if (row["component"], row["window_days"]) == ("comp1", 30)]
    return row["failures"], row["true_episodes"]


def test_a_failure_that_is_told_of_late_overturns_labels_and_what_the_scores_were_worth_but_no_decision(plant, week):
    assert outcomes(plant) == set()
    assert judged(plant, LAST) == (0, 0)
    kept = plant.store.registered(), plant.store.decisions()
    plant.land("failures", "late.csv", "2015-03-03 20:00:00,1,comp1")
    # what the landing sensor asks for: up to the last day, as it is nearer than 31 days
    assert plant.run("2015-03-03", LAST, tables=EVERYTHING).success
    # of the observations of the 2nd and 3rd, kept by the day on which their horizon is over
    assert outcomes(plant) == {(day(f"2015-03-0{n}"), 1, "comp1") for n in (4, 5)}
    # there are scores since the 1st, more than a horizon before it: it was caught, the alarm was right
    assert judged(plant, LAST) == (1, 1)
    assert (plant.store.registered(), plant.store.decisions()) == kept
    # taken back, it never was
    (plant.landing / "failures" / "late.csv").unlink()
    shutil.rmtree(plant.landing.parent / "staging" / "failures")  # it was the only one of its table
    assert plant.run("2015-03-03", LAST, tables="failures component_failures realised_performance").success
    assert (outcomes(plant), judged(plant, LAST)) == (set(), (0, 0))


def test_scores_whose_observations_are_gone_stop_the_worklist_and_say_what_to_do(plant, week):
    last = day(LAST)
    rows = plant.lake.read(OBSERVATIONS, last, last + dt.timedelta(days=1)).where(f"machine_id != {NEW}")
    plant.lake.replace_days(OBSERVATIONS, rows, last, last + dt.timedelta(days=1), {})
    text = failure(plant.run(LAST, tables="worklist/maintenance"))
    assert "scores/component_risk has scores of 1 observations that features/observations does not have any more" in text
    assert f"machine {NEW} at {LAST} 18:00: materialize both for that day" in text
