"""`pdm-assets quarantine`: what is shown, handed out to correct, and let in once, on the real assets."""

import csv
import json
import os
import shutil
import time

import pyarrow as pa
import pytest
from click.testing import CliRunner

from pdm_assets import cli
from pdm_assets.assets.raw import BALANCE
from pdm_assets.resources.quarantine import guarded, printable, releases, rules_of, unguarded
from pdm_assets.settings import Settings
from pdm_assets_tests.builders import day, utc
from pdm_assets_tests.plant import Plant, check, metadata

DAY, LATER = "2015-03-01", "2015-03-02"
LANDED = "machines telemetry"
OFF = "volt is …, valid: volt BETWEEN 0.0 AND 1000.0"


def reading(hour, machine=1, volt="170.5", on=DAY):
    return f"{on} {hour:02d}:00:00,{machine},{volt},400,100,40"


@pytest.fixture(scope="module")
def made(tmp_path_factory, engine, spark):
    """A plant with two days taken, below a root that nobody changes."""
    plant = Plant(tmp_path_factory.mktemp("made"), engine, first_day=DAY)
    plant.land("machines", "machines.csv", "1,model3,18", "2,model3,18", "3,model3,-1")
    plant.land("machines", f"machines-{LATER}.csv", "1,model3,18", "2,model3,18", "4,model3,-1")
    plant.land(
        "telemetry",
        "bad.csv",
        reading(0),
        "2015-13-01 01:00:00,1,170.5,400,100,40",  # line 3
        reading(2, volt="-7"),
        reading(3, volt="-5"),  # line 5: the next file has it right
        reading(4, machine=99),
        reading(5, volt="170,5"),  # line 7
        reading(6, volt="1e6"),
    )
    plant.land("telemetry", "right.csv", reading(3), reading(7))
    plant.land(
        "telemetry",
        "turned.csv",
        f"high,2,{DAY} 08:00:00,400,100,40",
        f"-1,2,{DAY} 09:00:00,400,100,40",
        header="volt,machineID,datetime,rotate,pressure,vibration",
    )
    plant.land("telemetry", "late.csv", reading(0, on=LATER, volt="-2"), reading(1, on=LATER))
    result = plant.run(DAY, LATER, tables=LANDED)
    assert result.success
    return plant, result


@pytest.fixture
def plant(made, tmp_path, engine):
    """A plant with a copy of it: to copy takes no Spark."""
    shutil.copytree(made[0].landing.parent, tmp_path / "plant")
    return Plant(tmp_path / "plant", engine, first_day=DAY)


@pytest.fixture
def quarantine(plant, monkeypatch):
    monkeypatch.setattr(cli, "_lake", lambda: plant.lake)
    monkeypatch.setattr(cli, "_settings", lambda: Settings(data=plant.landing.parent, first_day=day(DAY)))
    monkeypatch.setattr(cli, "_user", lambda: "mia")

    def run(*arguments):
        result = CliRunner().invoke(cli.main, ["quarantine", *map(str, arguments)])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


@pytest.fixture
def corrected(quarantine, tmp_path):
    """Hands out the rows of a table, and writes them corrected: by (file, line), what to put where."""

    def write(table, corrections, name="corrected.csv"):
        handed = tmp_path / "handed.csv"
        assert quarantine("show", "--table", table, "--csv", handed).exit_code == 0
        header, *rows = csv.reader(handed.read_text().splitlines())
        kept = [row for row in rows if (row[0], int(row[1])) in corrections]
        for row in kept:
            for column, text in corrections[row[0], int(row[1])].items():
                row[header.index(column)] = text
        with (tmp_path / name).open("w", newline="") as out:
            csv.writer(out).writerows([header, *(row[: len(header)] for row in kept)])
        return tmp_path / name

    return write


def settle(plant, table="telemetry"):
    """What was released landed a while ago, but after everything else."""
    for path in (plant.landing / table).glob("released-*"):
        os.utime(path, (time.time() - 10,) * 2)


def landed(plant, table="telemetry"):
    return sorted(path.name for path in (plant.landing / table).iterdir() if not path.name.startswith("."))


def test_each_day_says_in_the_ui_what_keeps_its_rows_out_by_rule(made):
    days = metadata(made[1], "quarantine/telemetry")
    shown = [(record.data["reason"], record.data["rows"], record.data["files"]) for record in days[DAY]["reasons"].records]
    assert shown == [
        (OFF, 4, 2),
        ("machine … is not in the fleet that day", 1, 1),
        ("observed_at … is not a time", 1, 1),
        ("volt … is not a number", 1, 1),
        ("… fields where 6 are expected", 1, 1),
    ]
    assert days[DAY]["reasons"].records[0].data["first"] == f"bad.csv, line 4: {DAY} 02:00:00,1,-7.0,400.0,100.0,40.0"
    assert [(record.data["rows"], record.data["files"]) for record in days[LATER]["reasons"].records] == [(1, 1)]
    assert days[DAY]["reasons_in_run"].records[0].data == {
        "reason": OFF,
        "rows": 5,
        "files": 3,
        "first": days[DAY]["reasons"].records[0].data["first"],
    }
    # on each day that the list is in force
    assert sum(record.data["rows"] for record in metadata(made[1], "quarantine/machines")[DAY]["reasons_in_run"].records) == 2


def test_reasons_of_one_rule_are_one_whatever_the_bad_value_says():
    reasons = {
        "error_code is x, valid: 'y', valid: error_code IN ('error1')": "error_code is …, valid: error_code IN ('error1')",
        "error_code is two\nlines, valid: error_code IN ('error1')": "error_code is …, valid: error_code IN ('error1')",
        "machine -9 is not in the fleet that day": "machine … is not in the fleet that day",
        r"volt 'it\'s \"x\" is not a time' is not a number; rotate \"o'clock\" is not finite".replace('\\"', '"'): (
            "volt … is not a number; rotate … is not finite"
        ),
        "observed_at '0001-01-01' is before 1970; volt is missing": "observed_at … is before 1970; volt is missing",
        "7 fields where 6 are expected": "… fields where 6 are expected",
        "one key twice with different values in the same file": "one key twice with different values in the same file",
    }
    assert dict(zip(reasons, rules_of(pa.array(list(reasons))).to_pylist(), strict=True)) == reasons


@pytest.mark.parametrize("text", ["=1+1", "'=x", "'", "''", "@x", "-x", "a'b", "", "\tx"])
def test_a_formula_is_shown_as_text_and_comes_back_as_it_was(text):
    assert unguarded(guarded(text)) == text
    assert not guarded(text).startswith(("=", "+", "-", "@", "\t"))


def test_a_number_with_a_sign_is_no_formula():
    assert guarded("-0.5") == "-0.5"


def test_a_terminal_shows_no_control_characters():
    assert printable("a\x1b[31m\nb\u202e…") == r"a\x1b[31m\nb\u202e…"


def test_the_rows_are_shown_by_rule_and_those_that_another_file_said_better_are_settled(quarantine):
    said = quarantine("show", "--table", "telemetry").output.splitlines()
    assert said[:3] == [
        "telemetry: 9 rows in quarantine, 8 of them unsettled",
        f"  5 (4 unsettled) of 3 files: {OFF}",
        f"      such as bad.csv, line 4: {DAY} 02:00:00,1,-7.0,400.0,100.0,40.0",
    ]
    everything = quarantine("show").output
    assert "machines: 2 rows in quarantine, 2 of them unsettled" in everything  # each once, however many days its list holds
    assert "maintenance: 0 rows in quarantine" in everything


def test_rows_are_shown_one_by_one_of_some_days_and_reasons(quarantine):
    said = quarantine("show", "--table", "telemetry", "--rows", "--reason", "volt is", "--to", DAY).output.splitlines()
    assert said[1] == (
        f"{DAY}  bad.csv, line 5  volt is -5.0, valid: volt BETWEEN 0.0 AND 1000.0  [{DAY} 03:00:00,1,-5.0,400.0,100.0,40.0]"
        "  raw/telemetry has a row of its key"
    )
    assert [line.split("  ")[1] for line in said[:4]] == [
        *(f"bad.csv, line {line}" for line in (4, 5, 8)),
        "turned.csv, line 3",
    ]
    assert said[4].startswith("telemetry: 4 rows")
    assert quarantine("show", "--table", "telemetry", "--from", LATER).output.startswith("telemetry: 1 rows")
    assert "is none of telemetry" in quarantine("show", "--table", "oil").output
    assert "--csv needs --table" in quarantine("show", "--csv", "x.csv").output


def test_the_unsettled_rows_are_handed_out_in_the_columns_of_the_table(quarantine, tmp_path):
    quarantine("show", "--table", "telemetry", "--csv", tmp_path / "out.csv")
    header, *rows = csv.reader((tmp_path / "out.csv").read_text().splitlines())
    assert header == ["file", "line", "reason", "datetime", "machineID", "volt", "rotate", "pressure", "vibration"]
    found = {(row[0], int(row[1])): row[3:] for row in rows}
    assert set(found) == {*(("bad.csv", n) for n in (3, 4, 6, 7, 8)), ("turned.csv", 2), ("turned.csv", 3), ("late.csv", 2)}
    # of a file with another order, both what was kept as it landed and what was written anew
    assert found["turned.csv", 2] == [f"{DAY} 08:00:00", "2", "high", "400", "100", "40"]
    assert found["turned.csv", 3] == [f"{DAY} 09:00:00", "2", "-1.0", "400.0", "100.0", "40.0"]


GOOD = {
    ("bad.csv", 3): {"datetime": f"{DAY} 01:00:00"},
    ("bad.csv", 4): {"volt": "171"},
    ("bad.csv", 6): {"machineID": "1", "datetime": f"{DAY} 07:00:00"},  # of which another file told already
    ("bad.csv", 7): {"volt": "170.5", "rotate": "400", "pressure": "100", "vibration": "40"},
    ("turned.csv", 2): {"volt": "172"},
}


def test_corrected_rows_land_once_reach_raw_and_settle_what_they_correct(plant, quarantine, corrected):
    before = landed(plant)
    first = corrected("telemetry", GOOD)
    said = quarantine("release", "telemetry", first).output
    assert "5 rows released, of which raw has 1 already" in said
    (new,) = set(landed(plant)) - set(before)
    assert new.startswith("released-")
    # nothing enters twice: not the same file, not a line of it in another
    assert quarantine("release", "telemetry", first).output == "nothing new\n5 rows were released before\n"
    shutil.copyfile(first, first.with_name("again.csv"))
    assert quarantine("release", "telemetry", first.with_name("again.csv")).output.startswith("nothing new\n")
    assert set(landed(plant)) == {*before, new}
    settle(plant)
    result = plant.run(DAY, LATER, tables=LANDED)
    assert result.success
    balance = check(result, "raw/telemetry", BALANCE)
    assert balance.passed, balance.description
    counts = {name: value.value for name, value in balance.metadata.items()}
    assert (counts["landed_rows"], counts["raw_rows"], counts["quarantined_rows"], counts["exact_duplicates"]) == (18, 8, 9, 1)
    readings = plant.rows("raw/telemetry", DAY, DAY, "observed_at", "machine_id", "volt")
    hours = {utc(f"{DAY} {hour:02d}:00"): volt for hour, volt in ((0, 170.5), (1, 170.5), (2, 171.0), (3, 170.5), (5, 170.5))}
    assert {at: volt for at, machine, volt in readings if machine == 1 and at in hours} == hours
    assert (utc(f"{DAY} 08:00"), 2, 172.0) in readings
    # the rows stay as history, and say by whom they were corrected
    shown = quarantine("show", "--table", "telemetry", "--rows", "--reason", "fields").output
    assert f"released as {new} by user mia, " in shown
    assert "9 rows in quarantine, 3 of them unsettled" in quarantine("show", "--table", "telemetry").output
    record = json.loads((plant.landing / "telemetry" / f".{new}.release.json").read_text())
    assert record["released_by"] == "user mia"
    # taken out of the landing folder, it never was
    (plant.landing / "telemetry" / new).unlink()
    assert releases(plant.landing / "telemetry") == {}


def test_an_hour_that_this_machines_clock_has_twice_is_two_hours(quarantine, corrected, monkeypatch):
    path = corrected("telemetry", {("bad.csv", 6): GOOD["bad.csv", 6], ("bad.csv", 8): {"volt": "171"}})  # 07:00 and 06:00
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", "XXX0YYY-1,J1/0,J60/8")  # set back on 1 March: 06:00 and 07:00 UTC are both 07:00 there
        time.tzset()
        try:
            said = quarantine("release", "telemetry", path).output
        finally:
            elsewhere.undo()
            time.tzset()
    assert "2 rows released, of which raw has 1 already" in said


def test_rows_are_released_though_the_staging_was_deleted(plant, quarantine, corrected):
    path = corrected("telemetry", {("bad.csv", 3): {"datetime": f"{DAY} 01:00:00"}})
    shutil.rmtree(plant.landing.parent / "staging")
    result = quarantine("release", "telemetry", path)
    assert result.exit_code == 0, result.output
    assert "1 rows released" in result.output


def refused(plant, quarantine, path):
    """What is said of a file of which nothing is let in."""
    before = landed(plant)
    result = quarantine("release", "telemetry", path)
    assert result.exit_code == 1
    assert landed(plant) == before
    assert not list((plant.landing / "telemetry").glob(".*release*"))
    first, *lines = result.output.splitlines()
    assert "nothing was released" in first
    return lines


def test_one_row_that_is_still_bad_keeps_all_out_and_each_is_named_with_line_and_reason(plant, quarantine, corrected):
    corrections = {
        ("bad.csv", 3): {"datetime": f"{DAY} 01:00:00"},  # right now
        ("bad.csv", 4): {},
        ("bad.csv", 6): {"machineID": "98"},
        ("bad.csv", 8): {"volt": "high"},
        ("turned.csv", 2): {"volt": "1", "datetime": f"{DAY} 00:00:00", "machineID": "1"},
        ("turned.csv", 3): {"volt": "1", "datetime": "2015-02-28 00:00:00"},
    }
    path = corrected("telemetry", corrections)
    assert refused(plant, quarantine, path) == [
        "line 3: volt is -7.0, valid: volt BETWEEN 0.0 AND 1000.0",
        "line 4: machine 98 is not in the fleet that day",
        "line 5: volt 'high' is not a number",
        "line 6: raw has other values for its key, from bad.csv, line 2; if these are wrong, land the right ones as a file of "
        "its own",
        f"line 7: before the first day partition ({DAY})",
    ]


def test_a_row_of_a_day_to_come_or_that_corrects_nothing_is_refused(plant, quarantine, corrected):
    path = corrected("telemetry", {("bad.csv", 4): {"volt": "1", "datetime": "9999-12-31 00:00:00"}})
    assert refused(plant, quarantine, path) == ["line 2: it is of 9999-12-31, a day to come"]
    path = corrected("telemetry", {("bad.csv", 4): {"line": "2"}, ("bad.csv", 6): {"file": "../x.csv"}, ("bad.csv", 7): {}})
    text = path.read_text()
    path.write_text(text + text.splitlines()[2] + ",7\n")
    assert refused(plant, quarantine, path) == [
        "line 2: bad.csv, line 2 is not in quarantine",
        "line 3: ../x.csv, line 6 is not in quarantine",
        "line 5: 10 fields where 9 are expected",
    ]


def test_what_was_released_can_not_be_released_with_other_values_nor_by_two_lines(quarantine, corrected):
    assert quarantine("release", "telemetry", corrected("telemetry", GOOD, "first.csv")).exit_code == 0
    first = corrected("telemetry", GOOD).parent / "first.csv"
    text = first.read_text()
    first.write_text(text.replace(",171,", ",173,"))
    assert "with other values; land what changes them as a file of its own" in quarantine("release", "telemetry", first).output
    first.write_text(text + text.splitlines()[1] + "\n")
    assert "bad.csv, line 3 is corrected in line 2 too" in quarantine("release", "telemetry", first).output


LATE = ("late.csv", 2)


def record_of(plant, landed):
    return plant.landing / "telemetry" / f".{landed}.release.json"


def test_a_row_in_the_place_of_one_that_was_released_is_another_row(plant, quarantine, corrected):
    """`late.csv` is replaced: its line 2, once of machine 1 at 00:00, is of machine 2 at 05:00."""
    assert "1 rows released" in quarantine("release", "telemetry", corrected("telemetry", {LATE: {"volt": "171"}})).output
    settle(plant)
    plant.land("telemetry", "late.csv", reading(5, machine=2, on=LATER, volt="-9"))
    assert plant.run(LATER, tables=LANDED).success
    shown = quarantine("show", "--table", "telemetry", "--rows", "--from", LATER).output.splitlines()
    assert shown[0].endswith(f"[{LATER} 05:00:00,2,-9.0,400.0,100.0,40.0]  unsettled")
    (first,) = (name for name in landed(plant) if name.startswith("released-"))
    said = quarantine("release", "telemetry", corrected("telemetry", {LATE: {"volt": "172"}}))
    assert said.output.endswith("1 rows released\n")
    (second,) = (name for name in landed(plant) if name.startswith("released-") and name != first)
    assert (plant.landing / "telemetry" / second).read_text().splitlines()[1:] == [f"{LATER} 05:00:00,2,172,400.0,100.0,40.0"]
    shown = quarantine("show", "--table", "telemetry", "--rows", "--from", LATER).output.splitlines()
    assert f"  released as {second} by user mia, " in shown[0]


def test_while_two_rows_stand_in_one_place_none_of_them_is_released(plant, quarantine, corrected):
    """`late.csv` is replaced by a row of the day before, and the later day still has the old one."""
    path = corrected("telemetry", {LATE: {"volt": "171"}})
    plant.land("telemetry", "late.csv", reading(5, machine=2, volt="-9"))
    assert plant.run(DAY, tables=LANDED).success
    (said,) = refused(plant, quarantine, path)
    assert said.startswith("line 2: late.csv, line 2 is two rows in quarantine, for the file was replaced: ")


def test_a_record_of_an_earlier_release_still_settles_its_rows(plant, quarantine, corrected):
    path = corrected("telemetry", {LATE: {"volt": "171"}})
    assert quarantine("release", "telemetry", path).exit_code == 0
    (name,) = (name for name in landed(plant) if name.startswith("released-"))
    record = json.loads(record_of(plant, name).read_text())
    assert record.pop("texts") == [f"{LATER} 00:00:00,1,-2.0,400.0,100.0,40.0"]
    record_of(plant, name).write_text(json.dumps(record))
    shown = quarantine("show", "--table", "telemetry", "--rows", "--from", LATER).output.splitlines()
    assert f"  released as {name} by user mia, " in shown[0]
    assert quarantine("release", "telemetry", path).output == "nothing new\n1 rows were released before\n"


def test_a_spreadsheet_may_have_filled_up_the_lines_and_a_line_may_be_too_short(quarantine, corrected):
    path = corrected("telemetry", {("bad.csv", 4): {"volt": "171"}})
    lines = path.read_text().splitlines()
    path.write_bytes(("\ufeff" + "".join(f"{line},,\r\n" for line in lines)).encode())
    assert quarantine("release", "telemetry", path).output.endswith("1 rows released\n")
    path.write_text(f"{lines[0]}\n{lines[1].rsplit(',', 2)[0]}\n")
    assert "line 2: 7 fields where 9 are expected" in quarantine("release", "telemetry", path).output
    path.write_text("datetime,machineID,volt,rotate,pressure,vibration\n")
    assert "has no column file and line" in quarantine("release", "telemetry", path).output
    path.write_bytes("file,line".encode("utf-16"))
    assert "is no UTF-8 text" in quarantine("release", "telemetry", path).output


def test_a_corrected_machine_joins_the_list_that_it_was_missing_from_and_replaces_none(plant, quarantine, corrected):
    young = {"age": "1"}
    path = corrected("machines", {("machines.csv", 4): young, (f"machines-{LATER}.csv", 4): young})
    assert "2 rows released" in quarantine("release", "machines", path).output
    settle(plant, "machines")
    result = plant.run(DAY, LATER, tables="machines")
    assert check(result, "raw/machines", BALANCE).passed
    assert plant.rows("raw/machines", DAY, LATER, "date", "machine_id") == [
        *((day(DAY), machine) for machine in (1, 2, 3)),
        *((day(LATER), machine) for machine in (1, 2, 4)),
    ]
    assert "2 rows in quarantine, 0 of them unsettled" in quarantine("show", "--table", "machines").output
