"""Reading landed files: which rows are taken, on which line, and what is said of the others."""

import datetime as dt
import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdm_assets.resources import landed_columns, landed_rows, staged_buckets
from pdm_assets.resources.landed_columns import LandingError, date_in_name, table_of
from pdm_assets.resources.landed_rows import CsvReader, read_landed
from pdm_assets.resources.landed_values import parse_time
from pdm_assets.resources.staged_buckets import write_rows
from pdm_assets.resources.staging import WITHDRAWN, WITHDRAWN_KEPT_SECONDS, LandedFile, StagedFile, Staging
from pdm_assets.schemas.raw import ERRORS, FAILURES, MACHINES, MAINTENANCE, TELEMETRY
from pdm_assets_tests.builders import day, utc

HEADER = "datetime,machineID,volt,rotate,pressure,vibration\n"
ROW = "2015-01-01 06:00:00,1,170.5,450,100,40"


def read(path: Path, content: str | bytes, table=TELEMETRY):
    """The rows of a file as dictionaries, by line; a good row without its empty problem and text."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    rows = sorted((row for rows in read_landed(path, table) for row in rows.to_pylist()), key=lambda row: row["line"])
    for row in rows:
        if row["problem"] is None:
            assert row.pop("text") is None
            del row["problem"]
    return rows


def test_a_row_is_typed_and_named_as_in_the_table(tmp_path):
    assert read(tmp_path / "t.csv", HEADER + ROW) == [
        {
            "line": 2,
            "machine_id": 1,
            "observed_at": utc("2015-01-01 06:00"),
            "volt": 170.5,
            "rotate": 450.0,
            "pressure": 100.0,
            "vibration": 40.0,
        }
    ]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param('"datetime","machineID","volt","rotate","pressure","vibration"\n' + ROW, id="quoted header"),
        pytest.param(HEADER + '"2015-01-01 06:00:00","1","170.5",450,100,40', id="quoted values"),
        pytest.param("\ufeff" + HEADER + ROW + "\n", id="byte order mark"),
        pytest.param((HEADER + ROW + "\n").replace("\n", "\r\n"), id="Windows line ends"),
        pytest.param(
            "machine_id,OBSERVED_AT, Volt,rotate,pressure,vibration\n1,2015-01-01T06:00:00,170.5,450,100,40",
            id="our names, any case and order",
        ),
        pytest.param(HEADER + ROW.replace("170.5", " 170.5 ") + "\n\n", id="blanks around a number, blank last line"),
    ],
)
def test_forms_of_csv_that_say_the_same_read_the_same(tmp_path, content):
    assert read(tmp_path / "a.csv", content) == read(tmp_path / "b.csv", HEADER + ROW)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2015-01-01 06:00:00", "2015-01-01T06:00:00+00:00"),
        ("2015-01-01T06:00:00.123456", "2015-01-01T06:00:00.123456+00:00"),
        ("2015-01-01T06:00:00.123456789", "2015-01-01T06:00:00.123456+00:00"),
        ("2015-01-01 06:00", "2015-01-01T06:00:00+00:00"),
        ("2015-01-01", "2015-01-01T00:00:00+00:00"),
        ("2015-01-01T06:00:00Z", "2015-01-01T06:00:00+00:00"),
        ("2015-01-01T06:00:00+02:00", "2015-01-01T04:00:00+00:00"),
        ("2015-01-01 23:30:00 -0130", "2015-01-02T01:00:00+00:00"),
        ("1/31/2015 6:00:00 AM", "2015-01-31T06:00:00+00:00"),
        ("1/1/2015 12:00:00 AM", "2015-01-01T00:00:00+00:00"),
        ("1/1/2015 12:00:00 PM", "2015-01-01T12:00:00+00:00"),
    ],
)
def test_a_time_is_utc_whatever_its_form(tmp_path, text, expected):
    assert parse_time(text) == dt.datetime.fromisoformat(expected)
    assert read(tmp_path / "t.csv", HEADER + ROW.replace("2015-01-01 06:00:00", text))[0]["observed_at"] == parse_time(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "2015-02-30 06:00:00",
        "20150101",
        "31/1/2015 6:00:00 AM",
        "1/1/2015 13:00:00 PM",
        "2015-01-01 24:00:00",
        "0001-01-01 00:00:00+01:00",
    ],
)
def test_what_is_no_time_is_no_time(text):
    assert parse_time(text) is None


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("2015-01-01 06:00:00,1,,450,100,40", "volt is missing"),
        ("2015-01-01 06:00:00,1,NaN,450,100,40", "volt is missing"),
        ("2015-01-01 06:00:00,1,inf,450,100,40", "volt 'inf' is not finite"),
        ("2015-01-01 06:00:00,1,1e999,450,100,40", "volt '1e999' is not finite"),
        ("2015-01-01 06:00:00,1,high,450,100,40", "volt 'high' is not a number"),
        ("2015-01-01 06:00:00,1,1_0,450,100,40", "volt '1_0' is not a number"),
        ("2015-01-01 06:00:00,1.5,170,450,100,40", "machine_id '1.5' is not a whole number"),
        ("2015-01-01 06:00:00,0x10,170,450,100,40", "machine_id '0x10' is not a whole number"),
        (
            "2015-01-01 06:00:00,9223372036854775808,170,450,100,40",
            "machine_id '9223372036854775808' is not a whole number",
        ),
        ("2015-02-30 06:00:00,1,170,450,100,40", "observed_at '2015-02-30 06:00:00' is not a time"),
        ("1969-12-31 23:59:59,1,170,450,100,40", "observed_at '1969-12-31 23:59:59' is before 1970"),
        ("2015-01-01 06:00:00,1,170,450,100", "5 fields where 6 are expected"),
        ("2015-01-01 06:00:00,1,170,450,100,40,7", "7 fields where 6 are expected"),
        ('"2015-01-01 06:00:00,1,170,450,100,40', "1 fields where 6 are expected"),
        ("x,,170,450,100,40", "observed_at 'x' is not a time; machine_id is missing"),
    ],
)
def test_a_row_that_can_not_be_read_keeps_its_line_its_text_and_says_why(tmp_path, line, problem):
    rows = read(tmp_path / "t.csv", "\n".join([HEADER.strip(), ROW, line, ROW]))
    assert [row["line"] for row in rows] == [2, 3, 4]
    assert (rows[1]["problem"], rows[1]["text"]) == (problem, line)
    assert "problem" not in rows[0]
    assert "problem" not in rows[2]


def test_a_row_with_a_problem_keeps_the_values_that_could_be_read(tmp_path):
    (row,) = read(tmp_path / "t.csv", HEADER + "2015-01-01 06:00:00,1,high,450,100,40")
    assert (row["observed_at"], row["machine_id"], row["volt"], row["rotate"]) == (
        utc("2015-01-01 06:00"),
        1,
        None,
        450.0,
    )


def test_text_that_is_not_utf8_is_a_problem(tmp_path):
    (row,) = read(tmp_path / "m.csv", "machineID,model,age\n1,gr\xf6sse,3".encode("latin-1"), MACHINES)
    assert row["problem"] == "machine_model 'gr\ufffdsse' is not UTF-8 text"


@pytest.mark.parametrize("row", ["1,,3", "1, ,3"])
def test_a_machine_has_a_model(tmp_path, row):
    assert read(tmp_path / "m.csv", f"machineID,model,age\n{row}", MACHINES)[0]["problem"] == "machine_model is missing"


def test_lines_are_counted_across_blocks_pieces_and_ragged_rows(tmp_path, monkeypatch):
    monkeypatch.setattr(landed_rows, "BLOCK_BYTES", 4096)
    monkeypatch.setattr(landed_rows, "SINGLE_LINES_BYTES", 256)
    lines = [ROW] * 1000
    bad = {10: "ragged", 500: "", 501: ROW + ",1", 997: ROW.replace("450", "")}
    for n, text in bad.items():
        lines[n - 2] = text
    rows = read(tmp_path / "t.csv", HEADER + "\n".join(lines))
    assert [row["line"] for row in rows] == [n for n in range(2, 1002) if n != 500]
    assert {row["line"]: row["text"] for row in rows if "problem" in row} == {n: text for n, text in bad.items() if text}


values = st.one_of(
    st.sampled_from(
        [
            "1",
            " 2 ",
            "+3",
            "-0",
            "1e3",
            ".5",
            "5.",
            "nan",
            "inf",
            "",
            "x",
            "0x1F",
            "1e400",
            "NULL",
            '"7"',
            "9" * 30,
        ]
    ),
    st.text(alphabet="019.-+eE, \"'\ufffd\u00e4", max_size=6),
)
times = st.sampled_from(
    [
        "2015-01-01 06:00:00",
        "2015-01-01",
        "2015-01-01T06:00:00Z",
        "1/1/2015 6:00:00 AM",
        "x",
        "",
        " 2015-01-01",
        "1960-01-01",
    ]
)


@given(st.lists(st.tuples(times, values, values), min_size=1, max_size=8))
def test_blocks_and_single_lines_read_the_same(rows):
    """One line at a time is what says a problem; PyArrow, which reads the blocks, must agree on every row."""
    reader = CsvReader(ERRORS, ("occurred_at", "machine_id", "error_code"))
    block = "".join(",".join(row) + "\n" for row in rows).encode()
    slow = reader.read_lines(block, 2)
    fast = pa.concat_tables(reader.read_block(block, 2)).sort_by("line")
    each = [reader.read_block(line, n) for n, line in enumerate(block.splitlines(keepends=True), start=2)]
    assert fast.to_pylist() == slow.to_pylist()
    assert pa.concat_tables(table for tables in each for table in tables).to_pylist() == slow.to_pylist()


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("datetime,machineID,volt,rotate,pressure", "datetime, machineID, volt, rotate, pressure"),
        ("datetime,machineID,volt,rotate,pressure,vibration,humidity", "vibration, humidity"),
        ("datetime,machineID,volt,rotate,pressure,pressure", "pressure, pressure"),
        ("datetime,observed_at,machineID,volt,rotate,pressure,vibration", "datetime, observed_at"),
        ("datetime;machineID;volt;rotate;pressure;vibration", "datetime;machineID"),
        ("2015-01-01 06:00:00,1,170.5,450,100,40", "2015-01-01 06:00:00, 1"),
        ("", "none"),
    ],
)
def test_a_file_with_other_columns_is_refused_whole(tmp_path, header, found):
    with pytest.raises(LandingError) as error:
        read(tmp_path / "telemetry.csv", header)
    assert "telemetry.csv" in str(error.value)
    assert f"{found}" in str(error.value)
    assert "Expected, in any order: datetime, machineID, volt, rotate, pressure, vibration" in str(error.value)


def test_a_compressed_file_reads_the_same_and_a_cut_one_is_refused(tmp_path):
    plain = (HEADER + (ROW + "\n") * 500).encode()
    packed = gzip.compress(plain)
    assert read(tmp_path / "t.csv.gz", packed) == read(tmp_path / "t.csv", plain)
    for broken in (packed[:-20], packed[:-4] + b"0000", plain):
        with pytest.raises(LandingError, match=r"t.csv.gz: can't be read to its end"):
            read(tmp_path / "t.csv.gz", broken)


def test_what_unpacks_out_of_all_proportion_is_refused_before_it_fills_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(landed_columns, "BOMB_FROM_BYTES", 1 << 20)
    bomb = gzip.compress(HEADER.encode() + b"\n" * (40 << 20))
    staged = stage(tmp_path, "bomb.csv.gz", bomb)
    assert staged.refusal.startswith("bomb.csv.gz: unpacks to more than 200 times its size")
    assert [path.name for path in (tmp_path / "staging" / staged.fingerprint).iterdir()] == ["manifest.json"]
    # readings that never change are no bomb
    still = "".join(
        f"2015-01-{d:02d} {h:02d}:00:00,{m},170,450,100,40\n" for m in range(40) for d in range(1, 29) for h in range(24)
    )
    assert stage(tmp_path, "still.csv.gz", gzip.compress((HEADER + still).encode())).rows == 40 * 28 * 24


def test_parquet_that_claims_more_rows_than_fit_is_refused(tmp_path):
    rows = 3_000_000
    same = {name: pa.repeat(pa.scalar(1.0), rows) for name in ("volt", "rotate", "pressure", "vibration")}
    times = pa.repeat(pa.scalar(utc("2015-01-01 06:00"), pa.timestamp("us")), rows)
    table = pa.table({"datetime": times, "machineID": pa.repeat(pa.scalar(1), rows), **same})
    # one page a column: two kilobytes, whatever the number of rows
    one_page = {"row_group_size": rows, "write_batch_size": rows, "max_rows_per_page": rows, "data_page_size": 1 << 30}
    pq.write_table(table, tmp_path / "bomb.parquet", **one_page)
    (staged,) = Staging(tmp_path / "staging", TELEMETRY).of([LandedFile.at(tmp_path / "bomb.parquet")])
    assert staged.refusal.startswith("bomb.parquet: claims 3,000,000 rows in ")


def parquet(path: Path, **columns) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def test_parquet_reads_by_row_number_and_keeps_bad_rows_as_csv(tmp_path):
    times = [utc("2015-01-01 06:00"), None, utc("2015-01-01 08:00")]
    path = parquet(
        tmp_path / "t.parquet",
        datetime=pa.array(times, pa.timestamp("ns")),
        machineID=pa.array([1, 2, None], pa.float64()),
        volt=[170.5, 171.0, float("nan")],
        rotate=pa.array([450, 451, 452], pa.int32()),
        pressure=["100", "101", "high"],
        vibration=pa.array([40, 41, 42], pa.float32()),
    )
    good, *bad = (row for rows in read_landed(path, TELEMETRY) for row in rows.to_pylist())
    assert (good["line"], good["machine_id"], good["observed_at"], good["pressure"]) == (
        1,
        1,
        utc("2015-01-01 06:00"),
        100.0,
    )
    assert [(row["line"], row["problem"], row["text"]) for row in bad] == [
        (2, "observed_at is missing", ",2,171,451,101,41"),
        (
            3,
            "machine_id is missing; volt is missing; pressure 'high' is not a number",
            "2015-01-01 08:00:00,,nan,452,high,42",
        ),
    ]


def test_parquet_times_of_another_zone_are_converted(tmp_path):
    there = pa.array([utc("2015-01-01 05:00")], pa.timestamp("us", "UTC")).cast(pa.timestamp("ms", "Europe/Berlin"))
    path = parquet(
        tmp_path / "e.parquet",
        datetime=there,
        machineID=[1],
        errorID=pa.array(["error1"]).dictionary_encode(),
    )
    (row,) = (row for rows in read_landed(path, ERRORS) for row in rows.to_pylist())
    assert (row["occurred_at"], row["error_code"], row["problem"]) == (
        utc("2015-01-01 05:00"),
        "error1",
        None,
    )


def test_parquet_that_is_cut_or_of_a_hopeless_type_is_refused(tmp_path):
    path = parquet(tmp_path / "e.parquet", datetime=[1420000000], machineID=[1], errorID=["error1"])
    with pytest.raises(LandingError, match=r"e.parquet: column occurred_at is of type int64"):
        list(read_landed(path, ERRORS))
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(LandingError, match=r"e.parquet: can't be read to its end"):
        list(read_landed(path, ERRORS))


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("telemetry.csv", TELEMETRY),
        ("PdM_telemetry.CSV", TELEMETRY),
        ("PdM_maint.csv.gz", MAINTENANCE),
        ("maintenance.parquet", MAINTENANCE),
        ("failures.csv", FAILURES),
        ("machines-2015-06-01.csv", MACHINES),
        ("telemetry.txt", None),
        ("mytelemetry.csv", None),
    ],
)
def test_a_file_is_known_by_its_usual_name(name, table):
    assert table_of(name) is table


def test_a_date_in_a_name_is_a_real_date_on_its_own():
    assert date_in_name("machines-2015-06-01-2.csv") == day("2015-06-01")
    assert date_in_name("2015-13-01.csv") is None
    assert date_in_name("run12015-06-01.csv") is None


def stage(folder: Path, name: str, content: str | bytes, table=TELEMETRY, *, changed="2016-05-05 00:00"):
    """Stage the one landed file `name` of a folder."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    os.utime(folder / name, (utc(changed).timestamp(),) * 2)
    (staged,) = Staging(folder / "staging", table).of([LandedFile.at(folder / name)])
    return staged


@pytest.mark.parametrize(
    ("name", "rows", "home_day"),
    [
        ("2015-03-03.csv", [ROW, "soon,1,1,1,1,1"], "2015-01-01"),
        ("2015-03-03.csv", ["soon,1,1,1,1,1"], "2015-03-03"),
        ("t.csv", ["soon,1,1,1,1,1"], "2016-05-05"),
    ],
    ids=["earliest day of its rows", "date in its name", "day it was changed"],
)
def test_rows_without_a_readable_time_count_on_the_home_day(tmp_path, name, rows, home_day):
    staged = stage(tmp_path, name, HEADER + "\n".join(rows))
    assert staged.home_day == day(home_day)
    assert staged.rows_by_day == {day(home_day): len(rows)}
    dates = [d for part in staged.parts for d in pq.read_table(part.path)["date"].to_pylist()]
    assert dates == [day(home_day)] * len(rows)


def test_a_part_holds_few_days_and_all_parts_hold_every_row_once(tmp_path, monkeypatch):
    monkeypatch.setattr(staged_buckets, "ROWS_A_PART", 100)
    monkeypatch.setattr(staged_buckets, "ROWS_HELD", 300)
    start = utc("2014-12-30 23:00")
    lines = [f"{start + dt.timedelta(hours=h):%Y-%m-%d %H:%M:%S},{m},1,1,1,1" for m in (1, 2, 3) for h in range(24 * 40)]
    staged = stage(tmp_path, "t.csv", HEADER + "\n".join(lines))
    seen = []
    for part in staged.parts:
        rows = pq.read_table(part.path).to_pylist()
        days = {row["date"] for row in rows}
        assert (min(days), max(days)) == (part.first_day, part.last_day)
        assert (max(days) - min(days)).days < staged_buckets.BUCKET_DAYS
        assert all(row["date"] == row["observed_at"].date() and row["file"] == "t.csv" for row in rows)
        seen += [row["line"] for row in rows]
    assert sorted(seen) == list(range(2, len(lines) + 2))
    assert staged.rows == len(lines)
    assert staged.rows_by_day[day("2014-12-30")] == 3
    assert staged.rows_by_day[day("2015-01-01")] == 72


def test_a_full_memory_writes_the_fullest_bucket(tmp_path, monkeypatch):
    monkeypatch.setattr(staged_buckets, "ROWS_HELD", 5)
    reader = CsvReader(TELEMETRY, ("observed_at", "machine_id", "volt", "rotate", "pressure", "vibration"))
    batches = [
        reader.read_lines("".join(f"2015-0{m}-01,1,1,1,1,1\n" for m in months).encode(), 2) for months in ((1, 1, 1, 2), (2, 3))
    ]
    rows = write_rows(batches, tmp_path, "t.csv", "observed_at", TELEMETRY.unique, day("2000-01-01"))
    assert [first.month for _, first, _ in rows.parts] == [1, 2, 3]
    assert rows.rows_by_day == {day("2015-01-01"): 3, day("2015-02-01"): 2, day("2015-03-01"): 1}


def hourly(*hours: int, machine=1, volt="1"):
    times = (utc("2015-01-01 00:00") + dt.timedelta(hours=hour) for hour in hours)
    return "".join(f"{time:%Y-%m-%d %H:%M:%S},{machine},{volt},1,1,1\n" for time in times)


@pytest.mark.parametrize(
    ("rows", "repeating"),
    [
        (hourly(*range(200)), []),
        (hourly(1, 2) + hourly(1, 2, machine=2), []),
        (hourly(1, 2, 1), ["2015-01-01"]),
        (hourly(1, 2) + hourly(1, volt="x"), []),  # it is quarantined, whatever its key
        (hourly(1) + hourly(1, volt="5000"), ["2015-01-01"]),  # so is this one, but not by staging
        # a null in the batch of one of the two
        (hourly(1) + hourly(2, machine="x") + hourly(*range(3, 23)) + hourly(1), ["2015-01-01"]),
        # all days of the file's bucket: 28 December to 4 January
        (hourly(-24, 30, 30, 24 * 9), ["2014-12-31", "2015-01-02"]),
    ],
)
@pytest.mark.parametrize("keys_held", [staged_buckets.KEYS_HELD, 3])
def test_staging_says_on_which_days_a_key_may_repeat(tmp_path, monkeypatch, rows, repeating, keys_held):
    monkeypatch.setattr(staged_buckets, "KEYS_HELD", keys_held)
    monkeypatch.setattr(staged_buckets, "ROWS_A_PART", 3)  # rows of a key are in other parts than each other
    monkeypatch.setattr(landed_rows, "BLOCK_BYTES", 128)
    staged = stage(tmp_path, "t.csv", HEADER + rows)
    assert sorted(staged.repeating) == [day(each) for each in repeating]
    assert StagedFile.read(tmp_path / "staging" / staged.fingerprint) == staged
    assert not [*tmp_path.rglob("*.keys")]


def test_codes_and_machines_repeat_too(tmp_path):
    rows = "datetime,machineID,errorID\n2015-01-01,1,error1\n2015-01-01,1,error2\n"
    assert stage(tmp_path, "e.csv", rows, ERRORS).repeating == frozenset()
    assert stage(tmp_path / "more", "e.csv", rows + "2015-01-01,1,error1\n", ERRORS).repeating == {day("2015-01-01")}
    rows = "machineID,model,age\n1,model3,18\n2,model3,18\n"
    assert stage(tmp_path / "one", "machines.csv", rows, MACHINES).repeating == frozenset()
    assert stage(tmp_path / "two", "machines.csv", rows + "2,model4,18\n", MACHINES).repeating == {day("2016-05-05")}


def test_a_manifest_of_an_earlier_release_does_not_tell(tmp_path):
    staged = stage(tmp_path, "t.csv", HEADER + hourly(1))
    path = tmp_path / "staging" / staged.fingerprint / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["repeating"]
    path.write_text(json.dumps(manifest))
    assert StagedFile.read(path.parent).repeating is None


def test_a_file_without_rows_is_staged_as_that(tmp_path):
    staged = stage(tmp_path, "t.csv", HEADER)
    assert (staged.rows, staged.parts, staged.refusal) == (0, (), None)


def test_a_refused_file_says_so_and_leaves_nothing_behind(tmp_path):
    staged = stage(tmp_path, "t.csv", "a,b\n1,2\n")
    assert staged.refusal.startswith("t.csv: its columns are not those of raw/telemetry")
    assert staged.rows == 0
    assert [path.name for path in (tmp_path / "staging" / staged.fingerprint).iterdir()] == ["manifest.json"]


def test_a_file_is_staged_once_and_read_back_the_same(tmp_path):
    first = stage(tmp_path, "t.csv", HEADER + ROW)
    (tmp_path / "t.csv").write_text("no longer readable")
    os.utime(tmp_path / "t.csv", (utc("2016-05-05 00:00").timestamp(),) * 2)
    landed = LandedFile(tmp_path / "t.csv", first.size, first.mtime_ns)
    assert Staging(tmp_path / "staging", TELEMETRY).of([landed]) == [first]


@pytest.mark.parametrize("left", ["", "\0" * 300, '{"name": "t.csv", ', "{}", "null", '["t.csv"]'])
def test_a_file_whose_manifest_a_crash_of_the_machine_left_unreadable_is_staged_again(tmp_path, left):
    first = stage(tmp_path, "t.csv", HEADER + ROW)
    folder = tmp_path / "staging" / first.fingerprint
    (folder / "manifest.json").write_text(left)
    (folder / "left-over.parquet").touch()
    staging, landed = Staging(tmp_path / "staging", TELEMETRY), [LandedFile.at(tmp_path / "t.csv")]
    assert staging.known(landed) == [None]
    assert staging.of(landed) == [first]
    assert StagedFile.read(folder) == first
    assert {path.name for path in folder.iterdir()} == {"manifest.json", *(part.path.name for part in first.parts)}


def test_what_is_staged_is_on_the_disk_before_it_is_seen(tmp_path, monkeypatch):
    synced, fsync, rename = set(), os.fsync, os.rename

    def note(opened):
        synced.add(Path(os.readlink(f"/proc/self/fd/{opened}")).name)
        fsync(opened)

    def renamed(source, target):
        assert {path.name for path in source.iterdir()} == synced
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "rename", renamed)
    staged = stage(tmp_path, "t.csv", HEADER + ROW)
    assert synced == {"manifest.json", staged.parts[0].path.name}


def test_a_file_that_changes_while_it_is_staged_is_left_for_later(tmp_path):
    (tmp_path / "t.csv").write_text(HEADER + ROW)
    seen = LandedFile.at(tmp_path / "t.csv")
    with (tmp_path / "t.csv").open("a") as file:
        file.write("\n" + ROW)
    staging = Staging(tmp_path / "staging", TELEMETRY)
    assert staging.of([seen]) == []
    (tmp_path / "t.csv").unlink()
    assert staging.of([seen]) == []
    assert [path.name for path in (tmp_path / "staging").iterdir()] == [".lock"]


def test_a_folder_left_by_a_process_that_died_is_removed(tmp_path):
    left = tmp_path / "staging" / ".staging-dead"
    left.mkdir(parents=True)
    stage(tmp_path, "t.csv", HEADER + ROW)
    assert not left.exists()


def test_the_staging_of_a_file_that_is_gone_is_withdrawn_but_kept_for_readers_a_while(tmp_path):
    staged = stage(tmp_path, "t.csv", HEADER + ROW)
    folder = tmp_path / "staging" / staged.fingerprint
    staging = Staging(tmp_path / "staging", TELEMETRY)
    assert staging.of([]) == []
    assert (folder / WITHDRAWN).exists()
    assert staging.of([LandedFile.at(tmp_path / "t.csv")]) == [staged]
    staging.of([])
    long_ago = utc("2016-01-01 00:00").timestamp() - WITHDRAWN_KEPT_SECONDS
    os.utime(folder / WITHDRAWN, (long_ago, long_ago))
    staging.of([])
    assert not folder.exists()


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda path: path.write_bytes((HEADER + ROW).replace("\n", "\r").encode()), id="bare carriage returns"),
        pytest.param(lambda path: path.write_bytes((HEADER + ROW).encode("utf-16")), id="UTF-16"),
        pytest.param(lambda path: path.write_bytes(os.urandom(5_000)), id="noise"),
    ],
)
def test_a_file_that_is_no_csv_is_refused_and_not_raised(tmp_path, write):
    write(tmp_path / "telemetry.csv")
    (staged,) = Staging(tmp_path / "staging", TELEMETRY).of([LandedFile.at(tmp_path / "telemetry.csv")])
    assert staged.refusal
    assert "telemetry.csv" in staged.refusal


def test_parquet_of_a_time_that_no_calendar_has_is_refused_with_its_name(tmp_path):
    columns = {"datetime": pa.array([10**13], pa.timestamp("s")), "machineID": [1]}
    readings = {name: [1.0] for name in ("volt", "rotate", "pressure", "vibration")}
    path = parquet(tmp_path / "telemetry.parquet", **columns, **readings)
    (staged,) = Staging(tmp_path / "staging", TELEMETRY).of([LandedFile.at(path)])
    assert staged.refusal
    assert "telemetry.parquet" in staged.refusal


def test_a_file_that_can_not_be_opened_now_is_tried_again_without_a_change_of_it(tmp_path, monkeypatch):
    (tmp_path / "telemetry.csv").write_text(HEADER + ROW)
    landed, staging = [LandedFile.at(tmp_path / "telemetry.csv")], Staging(tmp_path / "staging", TELEMETRY)

    def denied(path):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr("pdm_assets.resources.staging.open_file", denied)
        (staged,) = staging.of(landed)
    assert staged.refusal == "telemetry.csv: can't be opened: Permission denied. It is tried again until it can, or is gone"
    (staged,) = staging.of(landed)
    assert (staged.refusal, staged.rows) == (None, 1)


def test_a_full_disk_is_not_the_fault_of_the_file(tmp_path, monkeypatch):
    (tmp_path / "telemetry.csv").write_text(HEADER + ROW)
    landed, staging = [LandedFile.at(tmp_path / "telemetry.csv")], Staging(tmp_path / "staging", TELEMETRY)

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(staged_buckets.pq, "write_table", full)
        with pytest.raises(OSError, match="No space left"):
            staging.of(landed)
    (staged,) = staging.of(landed)
    assert staged.rows == 1
