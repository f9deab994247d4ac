"""The lake and its IO manager: single days, ranges, empty days, first writes, and what is refused."""

import datetime as dt
import os
import time
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest
from pyspark.errors import PySparkException

from pdm_assets.partitions import DAILY, FROM_THE_FIRST_DAY
from pdm_assets.resources.delta_io import DeltaIOManager
from pdm_assets.resources.lake import Lake, LakeError
from pdm_assets.resources.spark import SparkEngine
from pdm_assets.schemas.raw import CHANNEL_NAMES, ERRORS, MACHINES, TELEMETRY
from pdm_assets_tests import builders
from pdm_assets_tests.builders import day


@pytest.fixture(scope="module")
def lake(tmp_path_factory, engine, spark):
    return Lake(spark=engine, root=str(tmp_path_factory.mktemp("lake")))


def errors_on(spark, *days):
    return builders.errors(spark, [(1, f"{on} 05:00", "error1") for on in days])


def held(lake, table=ERRORS):
    return {row["date"].isoformat() for row in lake.rows(table, columns=["date"])}


def test_a_table_that_was_never_written_is_named(lake):
    with pytest.raises(LakeError, match="raw/machines has never been written: materialize it first"):
        lake.read(MACHINES)
    assert lake.first_and_last_day(MACHINES) is None
    assert lake.rows_by_day(MACHINES, day("2015-01-01"), day("2015-01-02")) == {day("2015-01-01"): 0}


def test_days_are_replaced_and_no_others(lake, spark):
    first = lake.replace_days(ERRORS, errors_on(spark, "2015-01-01", "2015-01-03"), day("2015-01-01"), day("2015-01-04"), {})
    assert dict(first.rows_by_day) == {day("2015-01-01"): 1, day("2015-01-02"): 0, day("2015-01-03"): 1}
    # a day that is missing from the frame is emptied, one outside of the range is left alone
    lake.replace_days(ERRORS, errors_on(spark, "2015-01-02"), day("2015-01-01"), day("2015-01-03"), {})
    assert held(lake) == {"2015-01-02", "2015-01-03"}
    assert lake.first_and_last_day(ERRORS)[0] == day("2015-01-02")
    assert set(lake.written_at(ERRORS, day("2015-01-01"), day("2015-01-03"))) == {day("2015-01-02")}
    # None empties; where nothing was, nothing is committed
    emptied = lake.replace_days(ERRORS, None, day("2015-01-02"), day("2015-01-04"), {})
    assert held(lake) == set()
    assert lake.replace_days(ERRORS, None, day("2015-01-02"), day("2015-01-04"), {}).version == emptied.version


def test_a_day_is_one_file_in_order_of_its_keys_with_statistics_of_them_and_readings_have_no_dictionary(lake, spark):
    on = day("2015-01-01")
    readings = [(machine, f"2015-01-01 {hour:02d}:00", 1.0 * machine) for hour in (3, 1, 2) for machine in (2, 1)]
    lake.replace_days(TELEMETRY, builders.telemetry(spark, readings), on, on + dt.timedelta(days=1), {})
    (path,) = (Path(lake.root) / TELEMETRY.key / "date=2015-01-01").glob("*.parquet")
    file = pq.ParquetFile(path)
    keys = [(row["machine_id"], row["observed_at"].hour) for row in file.read().to_pylist()]
    assert keys == [(machine, hour) for machine in (1, 2) for hour in (1, 2, 3)]
    columns = [file.metadata.row_group(0).column(n) for n in range(file.metadata.num_columns)]
    assert {c.path_in_schema for c in columns if not c.has_dictionary_page} == set(CHANNEL_NAMES)
    logged = lake.delta(TELEMETRY).get_add_actions(flatten=True)
    known = {name: logged.column(name).to_pylist() for name in logged.schema.names if name.startswith(("max.", "num_records"))}
    assert {name for name, values in known.items() if None not in values} == {
        "num_records",
        "max.machine_id",
        "max.observed_at",
    }


def test_a_row_of_another_day_or_against_a_rule_is_refused_and_nothing_is_written(lake, spark):
    version = lake.replace_days(ERRORS, None, day("2015-02-01"), day("2015-02-02"), {}).version
    for rows in (
        errors_on(spark, "2015-02-02"),
        builders.errors(spark, [(1, "2015-02-01 05:00", "no such code")]),
    ):
        with pytest.raises(PySparkException):
            lake.replace_days(ERRORS, rows, day("2015-02-01"), day("2015-02-02"), {})
    assert lake.version(ERRORS) == version


def output_context(table, first, last):
    return dg.build_output_context(
        asset_key=dg.AssetKey(table.key.split("/")),
        asset_partitions_def=DAILY,
        asset_partition_key_range=dg.PartitionKeyRange(first, last),
        run_id="a-run",
    )


def input_days(lake, manager, first, last, **reads):
    context = dg.build_input_context(
        asset_key=dg.AssetKey(["raw", "errors"]),
        asset_partitions_def=DAILY,
        asset_partition_key_range=dg.PartitionKeyRange(first, last),
        definition_metadata=reads,
        upstream_output=output_context(ERRORS, first, last),
    )
    return sorted(str(row["date"]) for row in manager.load_input(context).collect())


def test_an_input_reads_its_days_or_as_far_back_as_it_says(lake, spark):
    manager = DeltaIOManager(lake=lake)
    days = [f"2015-03-0{n}" for n in range(1, 7)]
    lake.replace_days(ERRORS, errors_on(spark, *days), day("2015-03-01"), day("2015-03-07"), {})
    assert input_days(lake, manager, "2015-03-04", "2015-03-04") == ["2015-03-04"]
    assert input_days(lake, manager, "2015-03-04", "2015-03-05") == ["2015-03-04", "2015-03-05"]
    assert input_days(lake, manager, "2015-03-04", "2015-03-05", days_back=2) == days[1:5]
    assert input_days(lake, manager, "2015-03-04", "2015-03-05", days_back=2, up_to=2) == days[1:3]
    assert input_days(lake, manager, "2015-03-04", "2015-03-04", days_back=FROM_THE_FIRST_DAY) == days[:4]


def test_what_is_no_frame_is_refused_by_name(lake):
    with pytest.raises(TypeError, match="raw/telemetry returned list: return a Spark DataFrame or None"):
        DeltaIOManager(lake=lake).handle_output(output_context(TELEMETRY, "2015-01-01", "2015-01-01"), [1])


def test_a_creation_that_was_killed_is_cleared_away_and_begun_again(lake, tmp_path, monkeypatch):
    monkeypatch.setattr("pdm_assets.resources.lake.CREATED_BY_ANOTHER", 0)
    log = tmp_path / "raw" / "errors" / "_delta_log"
    log.mkdir(parents=True)
    (log / ".00000000000000000000.json.6c4b.tmp").write_text("{")
    here = Lake(spark=lake.spark, root=str(tmp_path))
    here.ensure(ERRORS)
    assert here.version(ERRORS) == 0
    assert here.delta(ERRORS).metadata().configuration.keys() >= {"delta.constraints.error_code_is_known"}


@pytest.fixture
def abandoned(tmp_path):
    """A table's log with what a creation left an hour ago."""
    log = tmp_path / "raw" / "errors" / "_delta_log"
    log.mkdir(parents=True)
    left = log / ".00000000000000000000.json.6c4b.tmp"
    left.write_text("{")
    an_hour_ago = time.time() - 3600
    os.utime(left, (an_hour_ago, an_hour_ago))
    return log


def clear(root):
    Lake(spark=SparkEngine(), root=str(root))._clear_abandoned_creation(ERRORS)


def test_of_a_creation_that_is_merely_slow_nothing_is_cleared_away(abandoned, tmp_path):
    at_work = abandoned / ".00000000000000000000.json.77aa.tmp"
    at_work.write_text("{")
    clear(tmp_path)
    assert list(abandoned.iterdir()) == [at_work]


def test_a_commit_that_lands_while_an_abandoned_creation_is_cleared_away_stays(abandoned, tmp_path, monkeypatch):
    commit, unlink = abandoned / "00000000000000000000.json", Path.unlink

    def commit_meanwhile(path):
        commit.write_text("{}")
        unlink(path)

    monkeypatch.setattr(Path, "unlink", commit_meanwhile)
    clear(tmp_path)
    assert list(abandoned.iterdir()) == [commit]


def test_files_of_someone_else_in_a_tables_folder_are_named_and_stay(lake, tmp_path, monkeypatch):
    monkeypatch.setattr("pdm_assets.resources.lake.CREATED_BY_ANOTHER", 0)
    folder = tmp_path / "raw" / "errors"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(LakeError, match=r"raw/errors can not be created: .* holds 1 files, such as notes\.txt"):
        Lake(spark=lake.spark, root=str(tmp_path)).ensure(ERRORS)
    assert (folder / "notes.txt").read_text() == "mine"
