"""`pdm-assets lake verify`: nothing to say of a lake that is whole, and each damage by its name."""

import json
import os
import shutil
import time
from urllib.parse import unquote

import pyarrow as pa
import pytest
from click.testing import CliRunner
from deltalake import DeltaTable, write_deltalake

from pdm_assets import cli
from pdm_assets_tests.builders import day
from pdm_assets_tests.upkeep.saved import MODEL, commit, last_metadata


@pytest.fixture
def verify(plant, monkeypatch):
    monkeypatch.setenv("PDM_DATA", str(plant.landing.parent))
    monkeypatch.setenv("PDM_FIRST_DAY", "2015-01-01")

    def run(*arguments):
        result = CliRunner().invoke(cli.main, ["lake", "verify", *arguments])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


def folder(plant, table):
    return plant.landing.parent / "lake" / table


def files(plant, table, day=None, version=None):
    """(path below the table, rows) of the files of a day."""
    actions = DeltaTable(f"{plant.lake.root}/{table}", version=version).get_add_actions(flatten=True)
    names, rows = actions.column("path").to_pylist(), actions.column("num_records").to_pylist()
    return [(unquote(name), count) for name, count in zip(names, rows, strict=True) if day is None or f"date={day}" in name]


def remove(plant, table, day=None):
    gone = {"deletionTimestamp": int(time.time() * 1000), "dataChange": True}
    commit(folder(plant, table), *({"remove": {"path": name, **gone}} for name, _ in files(plant, table, day)))


def add_copy(plant, table, day, to_day):
    """The rows of a day once more, kept under another or the same day."""
    ((name, rows),) = files(plant, table, day)
    copy = folder(plant, table) / f"date={to_day}" / "copy.parquet"
    copy.parent.mkdir(exist_ok=True)
    shutil.copy(folder(plant, table) / name, copy)
    add = {
        "path": f"date={to_day}/copy.parquet",
        "partitionValues": {"date": to_day},
        "size": copy.stat().st_size,
        "modificationTime": int(time.time() * 1000),
        "dataChange": True,
        "stats": json.dumps({"numRecords": rows}),
    }
    commit(folder(plant, table), {"add": add})


def path(plant, table, day, version=None):
    ((name, _),) = files(plant, table, day, version)
    return folder(plant, table) / name


def test_nothing_is_wrong_with_a_lake_that_is_whole_and_no_engine_is_started(verify, plant):
    result = verify()
    assert result.output == "14 tables looked at: nothing is wrong\n"
    assert result.exit_code == 0
    assert not (plant.landing.parent / "engine").exists()


def lose_a_file(plant):
    path(plant, "features/observations", "2015-01-02").unlink()


def flip_a_byte(plant):
    file = path(plant, "raw/telemetry", "2015-01-02")
    content = bytearray(file.read_bytes())
    content[len(content) // 4] ^= 0xFF
    file.write_bytes(content)


def cut_a_file(plant):
    file = path(plant, "raw/failures", "2015-01-03")
    file.write_bytes(file.read_bytes()[:-10])


def add_rows_twice(plant):
    add_copy(plant, "raw/telemetry", "2015-01-03", "2015-01-03")


def put_rows_under_another_day(plant):
    add_copy(plant, "raw/telemetry", "2015-01-03", "2015-01-04")


def lose_a_day_of_features(plant):
    remove(plant, "features/observations", "2015-01-02")


def lose_landed_rows(plant):
    remove(plant, "raw/errors", "2015-01-02")


def lose_a_landed_day(plant):
    remove(plant, "raw/failures", "2015-01-03")


def lose_a_landed_file(plant):
    (plant.landing / "failures" / "failures.csv").unlink()


def unmount_a_landing_folder(plant):
    plant.resources["landing"].zone.staged("raw/failures")
    (plant.landing / "failures").rename(plant.landing / "away")


def lose_a_rule(plant):
    metadata = last_metadata(folder(plant, "raw/errors") / "_delta_log")
    del metadata["configuration"]["delta.constraints.error_code_is_known"]
    commit(folder(plant, "raw/errors"), {"metaData": metadata})


def lose_what_a_model_names(plant):
    path(plant, "features/observations", "2015-01-02", version=1).unlink()


def damage_a_model(plant):
    (plant.store.folder(MODEL) / "card.json").write_text("{}")


def forget_a_model(plant):
    remove(plant, "models/registry")


def lose_the_log(plant):
    shutil.rmtree(folder(plant, "labels/component_failures") / "_delta_log")


def lose_a_table(plant):
    shutil.rmtree(folder(plant, "features/observations"))


def lose_a_raw_table(plant):
    shutil.rmtree(folder(plant, "raw/telemetry"))


def lose_a_quarantine(plant):
    plant.resources["landing"].zone.staged("raw/errors")
    shutil.rmtree(folder(plant, "quarantine/errors"))


def garble_the_log(plant):
    newest = max((folder(plant, "raw/machines") / "_delta_log").glob("*.json"))
    newest.write_text(newest.read_text()[:-40])


@pytest.mark.parametrize(
    ("damage", "said", "todo"),
    [
        (lose_a_file, "features/observations: 1 files are missing: date=2015-01-02/part-", "put them back from a backup"),
        (flip_a_byte, "raw/telemetry: 1 files are damaged: date=2015-01-02/part-", "put them back from a backup"),
        (cut_a_file, "raw/failures: 1 files are damaged: date=2015-01-03/part-", "put them back from a backup"),
        (
            add_rows_twice,
            "raw/telemetry: 48 rows have the key (machine_id, observed_at) of another on 2015-01-03",
            "materialize raw/telemetry of these days",
        ),
        (
            put_rows_under_another_day,
            "raw/telemetry: rows of other days are kept under 2015-01-04",
            "materialize raw/telemetry of these days",
        ),
        (
            lose_a_day_of_features,
            "features/observations: 2015-01-02 are empty, although there is telemetry",
            "materialize features/observations of these days",
        ),
        (
            lose_landed_rows,
            "raw/errors: landed rows of 2015-01-02 are neither in raw/errors nor in its quarantine",
            "materialize raw/errors of these days",
        ),
        (
            lose_a_landed_day,
            "raw/failures: rows landed for 2015-01-03, but neither raw/failures nor its quarantine holds any",
            "materialize raw/failures of these days",
        ),
        (
            lose_a_landed_file,
            "raw/failures: 2015-01-03 hold more rows than landed: files are gone from landing/failures",
            "put the files back",
        ),
        (unmount_a_landing_folder, "raw/failures: ", "mount it, or put them back"),
        (lose_a_rule, "raw/errors: the constraint error_code_is_known is missing", "it was changed by hand"),
        (
            lose_what_a_model_names,
            f"features/observations: version 1, which model {MODEL} was made from, can't be read: 1 of its files are gone",
            "put its files back from a backup",
        ),
        (damage_a_model, f"model {MODEL}: model {MODEL} is registered, but ", "Restore the folder from a backup"),
        (forget_a_model, f"model {MODEL}: models/decisions promotes it, but models/registry does not know it", "restore both"),
        (lose_the_log, "labels/component_failures: its folder holds files, but no log", "put the table's _delta_log back"),
        (
            lose_a_table,
            f"features/observations: it is not there, although these were made from it: model {MODEL}",
            "put its folder back",
        ),
        (
            lose_a_raw_table,
            "raw/telemetry: it is not there, although these were made from it: features/",
            "materialize raw/telemetry of all",
        ),
        (lose_a_quarantine, "quarantine/errors: it is not there, although 1 files of it landed", "put its folder back"),
        (garble_the_log, "raw/machines: its log can't be read", "put the table's _delta_log back from a backup"),
    ],
)
def test_each_damage_is_said_with_what_to_do(verify, plant, damage, said, todo):
    damage(plant)
    result = verify()
    assert result.exit_code == 1
    lines = result.output.splitlines()
    (place,) = [place for place, line in enumerate(lines) if line.startswith(f"WRONG {said}")]
    assert todo in lines[place + 1]
    # A damage that one finding tells of is told once.
    assert sum(line.startswith("WRONG") for line in lines) <= 2, result.output


@pytest.mark.parametrize("left", ["no folder", "an empty mount point", "empty folders"])
def test_a_lake_that_is_gone_is_not_taken_for_one_with_which_nothing_is_wrong(verify, plant, left):
    root = plant.landing.parent
    plant.resources["landing"].zone.staged("raw/errors")
    (root / ".lake.created").touch()
    shutil.rmtree(root / "lake")
    if left != "no folder":
        (root / "lake" / ("raw" if left == "empty folders" else "")).mkdir(parents=True)
    result = verify()
    assert result.exit_code == 1
    if left == "empty folders":
        assert "WRONG raw/errors: it is not there, although 1 files of it landed" in result.output
        return
    said = f"Error: the lake {root}/lake is gone, and it was there before: mount it"
    for command in (
        ["lake", "verify"],
        ["lake", "verify", "--table", "raw/errors"],
        ["lake", "upgrade"],
        ["quarantine", "show"],
    ):
        result = CliRunner().invoke(cli.main, command)
        assert (result.exit_code, result.output[: len(said)]) == (1, said), command


def test_a_registry_that_is_gone_is_told_of_by_the_models_that_the_days_name(verify, plant):
    days = pa.table({"date": [day("2015-01-02")], "model_version": [MODEL]})
    write_deltalake(folder(plant, "models/failure_model"), days, partition_by=["date"])
    for table in ("registry", "decisions"):
        shutil.rmtree(folder(plant, "models") / table)
    said = verify().output
    for table in ("registry", "decisions"):
        assert f"WRONG models/{table}: it is not there, although models/failure_model names models" in said


def test_of_files_that_wait_for_the_first_run_nothing_is_wrong(verify, plant):
    shutil.rmtree(plant.landing.parent / "lake")
    assert verify().output == "0 tables looked at: nothing is wrong\n"


def test_what_has_just_landed_is_waiting_and_not_wrong(verify, plant):
    plant.land("errors", "more.csv", "2015-01-03 05:00:00,1,error1")
    os.utime(plant.landing / "errors" / "more.csv", (time.time() - 2, time.time() - 2))
    result = verify()
    assert result.exit_code == 0
    assert "note  raw/errors: files landed since 2015-01-03 was written" in result.output


def test_a_look_can_be_narrowed_to_a_table(verify, plant):
    flip_a_byte(plant)
    assert verify("--table", "raw/errors").output == "1 tables looked at: nothing is wrong\n"
    assert verify("--table", "raw/telemetry").exit_code == 1
    unknown = verify("--table", "raw/noise")
    assert unknown.exit_code == 1
    assert "no table 'raw/noise'. Tables: raw/telemetry, raw/errors" in unknown.output
