"""Days from landed files to features and labels: where each row goes, and what a user is told.

One plant for all, for making its tables takes longer than filling them: each test has days of its own.
"""

import pytest

from pdm_assets.assets.raw import BALANCE, TAKEN
from pdm_assets.engine.delta import DeltaRs
from pdm_assets.engine.duckdb.session import Session
from pdm_assets.schemas.tables import TABLES
from pdm_assets_tests.builders import day, utc
from pdm_assets_tests.plant import Plant, check, failure, metadata

TELEMETRY = "machines telemetry"


@pytest.fixture(scope="module")
def plant(tmp_path_factory, engine, spark):  # spark: the session stays open from run to run
    plant = Plant(tmp_path_factory.mktemp("plant"), engine)
    plant.land_fleet(1, 2)
    return plant


@pytest.fixture(scope="module")
def january(plant):
    """Five days, the fourth without telemetry, as one range run."""
    plant.land_telemetry("2015-01-01", "2015-01-02", "2015-01-03", "2015-01-05")
    plant.land("errors", "errors.csv", "2015-01-02 05:00:00,1,error1")
    plant.land("maintenance", "maint.csv", "2014-12-31 06:00:00,1,comp1", "2015-01-02 06:00:00,1,comp2")
    plant.land("failures", "failures.csv", "2015-01-03 06:00:00,2,comp2")
    return plant.run("2015-01-01", "2015-01-05")


def test_a_range_of_days_goes_from_files_to_features_and_labels(plant, january):
    assert january.success
    assert all(evaluation.passed for evaluation in january.get_asset_check_evaluations())

    # by hand: volt is 170 + hour; machine 1 at 18:00 on the second day saw hours 19..23 and 0..18
    columns = ("machine_id", "observed_at", "volt_mean_24h", "error1_count_24h", "readings_36h")
    rows = plant.rows("features/observations", "2015-01-02", "2015-01-02", *columns)
    (row,) = [row for row in rows if row[:2] == (1, utc("2015-01-02 18:00"))]
    assert row[2] == pytest.approx(170 + sum(range(24)) / 24)
    assert row[3:] == (1, 36)
    # machine 2 fails on the third day at 06:00; what became of an observation is known two days after it
    columns = ("machine_id", "observed_at", "component", "fails_within_horizon")
    labels = plant.rows("labels/component_failures", "2015-01-01", "2015-01-05", *columns)
    assert [label[:3] for label in labels if label[3]] == [
        (2, utc(at), "comp2") for at in ("2015-01-01 06:00", "2015-01-01 18:00", "2015-01-02 06:00", "2015-01-02 18:00")
    ]
    # each day says its own rows, an empty one that it is empty
    days = metadata(january, "features/observations")
    assert [m["dagster/partition_row_count"] for _, m in sorted(days.items())] == [4, 4, 4, 0, 4]
    assert days["2015-01-01"]["dagster/table_name"] == "features/observations"
    # of a range, the UI takes columns and lineage from the newest day; the preview stands with the day that it shows
    for shown in ("preview", "dagster/column_schema", "dagster/column_lineage"):
        assert [day for day, m in days.items() if shown in m] == ["2015-01-05"], shown
    assert "2015-01-05" in days["2015-01-05"]["preview"]
    assert [day for day, m in metadata(january, "raw/errors").items() if "preview" in m] == ["2015-01-02"]


def test_a_day_alone_gives_the_rows_that_the_range_gave(plant, january):
    tables = ("raw/telemetry", "features/observations", "labels/component_failures")

    def content():
        return {key: plant.rows(key, "2015-01-01", "2015-01-05", *TABLES[key].column_names) for key in tables}

    as_a_range = content()
    assert all(as_a_range.values())
    assert plant.run("2015-01-02").success
    assert content() == as_a_range


def test_a_day_is_one_query_and_one_commit_for_each_table_that_it_changes(plant, january, monkeypatch):
    """What a day costs beside its rows. A step that asks once more, or commits twice, shows here and not in a timing."""
    queries, commits = [], []
    ask, write = Session._rows, DeltaRs.write

    def counted(tables, location, *given, **named):
        commits.append(location.split("lake/")[1])
        return write(tables, location, *given, **named)

    monkeypatch.setattr(Session, "_rows", lambda *given: queries.append(given[1].sql) or ask(*given))
    monkeypatch.setattr(DeltaRs, "write", counted)
    assert plant.run("2015-01-02").success
    raw = {"raw/machines", "raw/telemetry", "raw/errors", "raw/maintenance"}  # nothing failed that day and nothing was refused
    assert sorted(commits) == sorted(raw | {"features/observations", "labels/component_failures"})
    assert len(queries) == len(commits)


def test_a_day_that_nobody_has_heard_of_has_no_labels(plant):
    # on the 5th and 6th nothing landed: whether a machine failed then is not known
    plant.land_telemetry("2015-12-03", "2015-12-04")
    assert plant.run("2015-12-01", "2015-12-06", tables="machines telemetry failures component_failures").success
    labels = plant.rows("labels/component_failures", "2015-12-01", "2015-12-06", "date")
    assert set(labels) == {(day("2015-12-03"),), (day("2015-12-04"),)}


def test_what_can_not_be_used_is_in_quarantine_with_file_line_and_reason(plant):
    plant.land(
        "telemetry",
        "bad.csv",
        "2015-03-01 00:00:00,1,170,400,100,40",
        "2015-13-01 00:00:00,1,170,400,100,40",
        "2015-03-01 02:00:00,1,,400,100,40",
        "2015-03-01 03:00:00,1,-5,400,100,40",
        "2015-03-01 04:00:00,99,170,400,100,40",
        "2015-03-01 05:00:00,1,170,400,100,40",
        "2015-03-01 05:00:00,1,171,400,100,40",
        "2015-03-01 06:00:00,1,nan,400,100,40",
    )
    result = plant.run("2015-03-01", tables=TELEMETRY)
    assert result.success
    # a row without a readable time is kept by the day of its file
    found = plant.rows("quarantine/telemetry", "2015-03-01", "2015-03-01", "line", "file", "reason", "text")
    assert [row[0] for row in found] == [3, 4, 5, 6, 7, 8, 9]
    assert {row[1] for row in found} == {"bad.csv"}
    assert all(text for *_, text in found)
    words = ("is not a time", "volt", "volt", "machine 99 is not in the fleet", "one key twice", "one key twice", "volt")
    for (line, _, reason, _), word in zip(found, words, strict=True):
        assert word in reason, line
    assert plant.rows("raw/telemetry", "2015-03-01", "2015-03-01", "observed_at") == [(utc("2015-03-01 00:00"),)]
    balance = check(result, "raw/telemetry", BALANCE)
    assert balance.passed
    assert balance.metadata["landed_rows"].value == 8
    assert balance.metadata["quarantined_rows"].value == 7


def test_duplicates_collapse_and_of_two_files_the_later_wins_and_both_are_counted(plant):
    plant.land("telemetry", "a.csv", "2015-04-01 00:00:00,1,170,400,100,40", "2015-04-01 01:00:00,1,170,400,100,40")
    plant.land("telemetry", "b.csv", "2015-04-01 00:00:00,1,170,400,100,40", "2015-04-01 01:00:00,1,180,400,100,40")
    result = plant.run("2015-04-01", tables=TELEMETRY)
    assert plant.rows("raw/telemetry", "2015-04-01", "2015-04-01", "observed_at", "volt") == [
        (utc("2015-04-01 00:00"), 170.0),
        (utc("2015-04-01 01:00"), 180.0),
    ]
    counts = {name: value.value for name, value in check(result, "raw/telemetry", BALANCE).metadata.items()}
    assert counts["landed_rows"] == 4
    assert (counts["raw_rows"], counts["exact_duplicates"], counts["superseded_rows"], counts["quarantined_rows"]) == (
        2,
        1,
        1,
        0,
    )


def test_materialized_again_an_empty_day_commits_nothing_and_a_file_taken_back_takes_its_rows_along(plant):
    plant.land("errors", "april.csv", "2015-04-30 05:00:00,1,error1")
    plant.land("errors", "may.csv", "2015-05-01 05:00:00,1,error1")
    assert plant.run("2015-05-01", tables="machines errors").success
    assert plant.rows("raw/errors", "2015-05-01", "2015-05-01", "machine_id") == [(1,)]
    (plant.landing / "errors" / "may.csv").unlink()
    assert plant.run("2015-05-01", tables="machines errors").success
    assert plant.rows("raw/errors", "2015-05-01", "2015-05-01", "machine_id") == []
    version = plant.lake.version(TABLES["raw/errors"])
    assert plant.run("2015-05-01", tables="machines errors").success
    assert plant.lake.version(TABLES["raw/errors"]) == version


def test_a_run_by_hand_that_leaves_later_days_behind_is_warned_of(plant, january):
    plant.land_telemetry("2015-06-01", "2015-06-02", "2015-06-03", "2015-06-04", machines=(1,))
    tables = f"{TELEMETRY} observations"

    def behind(first, last):
        return check(plant.run(first, last, tables=tables), "features/observations", "later_days_have_seen_this_run")

    assert behind("2015-06-01", "2015-06-04").passed
    warned = behind("2015-06-01", "2015-06-01")
    assert not warned.passed
    assert "2015-06-02, 2015-06-03." in warned.description
    assert behind("2015-06-02", "2015-06-04").passed


def test_days_with_too_little_history_for_a_model_have_no_scores_and_say_from_when_on(plant, january):
    after = "component_risk worklist/maintenance realised_performance feature_drift"
    result = plant.run("2015-01-01", "2015-01-02", tables=f"failure_model {after}")
    assert result.success
    assert all(evaluation.passed for evaluation in result.get_asset_check_evaluations())
    said = metadata(result, "scores/component_risk")["2015-01-02"]
    assert said["not_scored"].startswith(
        "no model is in force for 2015-01-01 to 2015-01-02: the training window would begin on"
    )
    # the first observations are of the first day; 338 days after it
    assert "A first model works from 2015-12-05 on" in said["not_scored"]
    for table in (
        "scores/component_risk",
        "worklist/maintenance",
        "monitoring/realised_performance",
        "monitoring/feature_drift",
    ):
        assert plant.rows(table, "2015-01-01", "2015-01-02", "date") == []
    assert plant.rows("models/failure_model", "2015-01-01", "2015-01-02", "date", "status") == [
        (day("2015-01-01"), "too little history"),
        (day("2015-01-02"), "too little history"),
    ]


def test_scores_of_a_day_that_nobody_decided_a_model_for_say_how_to_get_one(plant, january):
    assert plant.run("2015-01-04", tables="failure_model").success
    text = failure(plant.run("2015-01-04", "2015-01-05", tables="component_risk"))
    assert "no model is in force for 2015-01-05: models/failure_model has no such day. Materialize models/failure_model" in text


def test_a_file_with_other_columns_is_refused_whole_and_the_check_says_which(plant):
    plant.land_telemetry("2015-07-01", machines=(1,))
    plant.land("telemetry", "other.csv", "2015-07-01 00:00:00,1,170", header="datetime,machineID,voltage")
    result = plant.run("2015-07-01", tables=TELEMETRY)
    assert result.success
    taken = check(result, "raw/telemetry", TAKEN)
    assert not taken.passed
    for words in ("other.csv", "voltage", "vibration"):
        assert words in taken.description
    assert len(plant.rows("raw/telemetry", "2015-07-01", "2015-07-01", "machine_id")) == 24


def test_rows_without_a_machine_list_stop_the_run_and_say_what_to_do(tmp_path, engine):
    plant = Plant(tmp_path, engine)
    plant.land_telemetry("2015-01-01")
    assert "put machines.csv" in failure(plant.run("2015-01-01", tables=TELEMETRY))


def test_telemetry_without_the_fleet_of_its_days_is_refused_and_empties_nothing(tmp_path, engine):
    plant = Plant(tmp_path, engine)
    plant.land_fleet(1)
    plant.land_telemetry("2015-01-01", "2015-01-02", machines=(1,))
    assert plant.run("2015-01-01", tables="machines telemetry").success
    text = failure(plant.run("2015-01-01", "2015-01-02", tables="telemetry"))
    assert "raw/machines has no rows for 2015-01-02, so every row would be one of an unknown machine" in text
    assert len(plant.rows("raw/telemetry", "2015-01-01", "2015-01-02", "machine_id")) == 24
