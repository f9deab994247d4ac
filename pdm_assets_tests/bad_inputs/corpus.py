"""Bad inputs, and good ones that look bad: what a file holds, and what must become of it.

Each file is of a machine of its own, @ in the text, so that no case has a say in another.
"""

import gzip
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pdm_assets_tests.builders import utc

DAY = "2015-03-28"
AT = f"{DAY} 06:00:00"
FIRST_MACHINE = 100

HEADERS = {
    "telemetry": "datetime,machineID,volt,rotate,pressure,vibration",
    "errors": "datetime,machineID,errorID",
    "maintenance": "datetime,machineID,comp",
    "failures": "datetime,machineID,failure",
    "machines": "machineID,model,age",
}
ROW = f"{AT},@,170.5,450,100,40"
Content = str | bytes | Callable[[Path, int], None]


@dataclass(frozen=True)
class Case:
    """A landed file.

    raw: the times of its rows that reach the raw table (of a machine list: their models). quarantined: words of the reason, by
    line. duplicates, superseded: how many. named: words that the check every_landed_file_was_taken says of the file.
    """

    id: str
    content: Content
    raw: tuple[str, ...] = ()
    quarantined: Mapping[int, str] = field(default_factory=dict)
    duplicates: int = 0
    superseded: int = 0
    named: str | None = None
    table: str = "telemetry"
    name: str | None = None

    @property
    def file(self) -> str:
        """Its name in the landing folder."""
        return self.name or f"{self.id.replace(' ', '-')}.csv"

    def write(self, folder: Path, machine: int) -> Path:
        """The file, or whatever it is."""
        path = folder / self.file
        if callable(self.content):
            self.content(path, machine)
        else:
            content = self.content.encode() if isinstance(self.content, str) else self.content
            path.write_bytes(content.replace(b"@", str(machine).encode()))
        return path


def rows(*lines: str, table: str = "telemetry", end: str = "\n") -> str:
    """A file of a table with its header."""
    return end.join([HEADERS[table], *lines]) + end


def one(line: str, reason: str, **options) -> dict:
    """Of three lines, the one in the middle is bad."""
    return {"content": rows(ROW.replace("06:00", "05:00"), line, ROW.replace("06:00", "07:00")), **GOOD_AROUND} | {
        "quarantined": {3: reason},
        **options,
    }


GOOD_AROUND = {"raw": (f"{DAY} 05:00:00", f"{DAY} 07:00:00")}


def volt(text: str) -> str:
    """A row whose volt is some text."""
    return ROW.replace("170.5", text)


def at(text: str) -> str:
    """A row whose time is some text."""
    return ROW.replace(AT, text)


def packed(content: str, cut: int = 0, spoil: bool = False) -> Callable[[Path, int], None]:
    def write(path: Path, machine: int) -> None:
        data = gzip.compress(content.replace("@", str(machine)).encode(), mtime=0)
        data = data[:-cut] if cut else data
        path.write_bytes(data[:-8] + b"12345678" if spoil else data)

    return write


def parquet(cut: int = 0, **columns) -> Callable[[Path, int], None]:
    """A Parquet file of one good row but for the columns that are given."""

    def write(path: Path, machine: int) -> None:
        good = {"datetime": pa.array([utc(f"{DAY} 06:00")], pa.timestamp("us")), "machineID": [machine]}
        good |= {"volt": [170.5], "rotate": [450.0], "pressure": [100.0], "vibration": [40.0]}
        table = pa.table({name: value for name, value in (good | columns).items() if value is not None})
        buffer = BytesIO()
        pq.write_table(table, buffer)
        path.write_bytes(buffer.getvalue()[: -cut or None])

    return write


def link(path: Path, machine: int) -> None:
    target = path.parent.parent / f"secret-{machine}.csv"
    target.write_text(rows(ROW).replace("@", str(machine)))
    path.symlink_to(target)


def folder(path: Path, machine: int) -> None:
    path.mkdir()
    (path / "telemetry.csv").write_text(rows(ROW).replace("@", str(machine)))


def pipe(path: Path, machine: int) -> None:
    os.mkfifo(path)


def archive(path: Path, machine: int) -> None:
    with zipfile.ZipFile(path, "w") as zipped:
        zipped.writestr("telemetry.csv", rows(ROW))


NO_COLUMNS = "its columns are not those of raw/telemetry"
NOT_WHOLE = "can't be read to its end"
MISSING, NO_NUMBER, NO_TIME, NO_WHOLE = " is missing", "is not a number", "is not a time", "is not a whole number"
TWICE = "one key twice with different values in the same file"
EVENT = f"{AT},@,"


def name_case(id: str, name: str) -> Case:
    return Case(f"name {id}", rows(ROW), (AT,), name=name)


CASES = (
    # compression
    Case("gzip cut short", packed(rows(*[ROW] * 500), cut=30), named="can't be read", name="cut.csv.gz"),
    Case("gzip with a wrong checksum", packed(rows(ROW), spoil=True), named=NOT_WHOLE, name="sum.csv.gz"),
    Case("plain text named gz", rows(ROW), named="can't be read", name="plain.csv.gz"),
    Case("gzip named csv", packed(rows(ROW)), named=NO_COLUMNS, name="packed.csv"),
    Case("zip named gz", archive, named="can't be read", name="zip.csv.gz"),
    Case("gzip of nothing", packed(""), named=NO_COLUMNS, name="empty.csv.gz"),
    Case(
        "gzip of two members",
        lambda p, m: p.write_bytes(
            b"".join(gzip.compress(t.replace("@", str(m)).encode()) for t in (rows(ROW), at(f"{DAY} 07:00:00")))
        ),
        (AT, f"{DAY} 07:00:00"),
        name="two.csv.gz",
    ),
    # files as a whole
    Case("no byte", "", named=NO_COLUMNS),
    Case("one line end", "\n", named=NO_COLUMNS),
    Case("header only", HEADERS["telemetry"] + "\n"),
    Case("header without line end", HEADERS["telemetry"]),
    Case("no line end at the end", rows(ROW)[:-1], (AT,)),
    Case("blank lines between", rows("", ROW, "", ""), (AT,)),
    Case("semicolons", rows(ROW).replace(",", ";"), named=NO_COLUMNS),
    Case("tabs", rows(ROW).replace(",", "\t"), named=NO_COLUMNS),
    Case("pipes", rows(ROW).replace(",", "|"), named=NO_COLUMNS),
    Case("separator line of Excel", "sep=,\n" + rows(ROW), named=NO_COLUMNS),
    Case("an error page of a web server", "<!DOCTYPE html>\n<html><body>502 Bad Gateway</body></html>\n", named=NO_COLUMNS),
    Case("JSON lines", '{"datetime": "2015-03-28", "machineID": 1}\n', named=NO_COLUMNS),
    Case("byte order mark", "\ufeff" + rows(ROW), (AT,)),
    Case("UTF-16", lambda p, m: p.write_bytes(rows(ROW).encode("utf-16")), named=NO_COLUMNS),
    Case("UTF-16 without mark", lambda p, m: p.write_bytes(rows(ROW).encode("utf-16-be")), named=NO_COLUMNS),
    Case("UTF-32", lambda p, m: p.write_bytes(rows(ROW).encode("utf-32")), named=NO_COLUMNS),
    Case("noise", lambda p, m: p.write_bytes(bytes(range(256)) * 20), named=NO_COLUMNS),
    Case("Windows line ends", rows(ROW, end="\r\n"), (AT,)),
    Case(
        "line ends of both kinds",
        HEADERS["telemetry"] + "\r\n" + ROW + "\n" + at(f"{DAY} 07:00:00") + "\r\n",
        (AT, f"{DAY} 07:00:00"),
    ),
    Case("carriage returns alone", rows(ROW, end="\r"), named="carriage returns alone"),
    Case(
        "a carriage return within a line and a blank line",  # as many rows for PyArrow as there are line ends
        rows(f"{at(f'{DAY} 05:00:00')}\r{volt('')}", "", at(f"{DAY} 07:00:00")),
        (f"{DAY} 07:00:00",),
        {2: "11 fields where 6 are expected"},
    ),
    Case("zeros after a crash", rows(ROW).encode() + b"\0" * 4096, (AT,), {3: "1 fields where 6 are expected"}),
    Case(
        "a line of 10 MB",
        lambda p, m: p.write_bytes(rows(ROW).encode() + b"x" * 10_000_000),
        named="no line ends within 8 MiB",
    ),
    Case("a line of 1 MB", rows(ROW, "x" * 1_000_000), (AT,), {3: "1 fields where 6 are expected"}),
    Case("a header of 1 MB", "x," * 500_000 + "\n" + ROW, named=NO_COLUMNS),
    Case("written twice one after the other", rows(ROW) + rows(ROW), (AT,), {3: NO_TIME}, duplicates=1),
    # columns
    Case("a column too many", rows(ROW).replace("vibration", "vibration,oil").replace(",40", ",40,7"), named=NO_COLUMNS),
    Case("a column too few", rows(ROW).replace(",vibration", "").replace(",40", ""), named=NO_COLUMNS),
    Case("a column twice", rows(ROW).replace("rotate", "volt"), named=NO_COLUMNS),
    Case("a column under both its names", rows(ROW).replace("volt", "observed_at"), named=NO_COLUMNS),
    Case(
        "columns in another order", "volt,machineID,datetime,rotate,pressure,vibration\n170.5,@," + AT + ",450,100,40\n", (AT,)
    ),
    Case("our names in capitals", "OBSERVED_AT,machine_id, VOLT ,rotate,pressure,vibration\n" + ROW, (AT,)),
    Case("no header", ROW + "\n", named=NO_COLUMNS),
    Case("a comma after each row", "".join(line + ",\n" for line in rows(ROW).splitlines()), named=NO_COLUMNS),
    Case("a header of another table", rows(ROW, table="errors"), named=NO_COLUMNS),
    # rows
    Case("a row too short", **one(f"{AT},@,170.5,450,100", "5 fields where 6 are expected")),
    Case("a row too long", **one(ROW + ",7", "7 fields where 6 are expected")),
    Case("a row of commas", **one(",,,,,", "observed_at is missing; machine_id is missing")),
    Case("a comment", **one("# clock adjusted", "1 fields where 6 are expected")),
    Case("a quote left open", **one('"' + ROW, "1 fields where 6 are expected")),
    Case("a line end in quotes", rows(ROW, f'"{DAY}\n 07:00:00",@,170.5,450,100,40'), (AT,), {3: "1 fields", 4: "1 fields"}),
    Case("an embedded NUL", **one(volt("17\x000.5"), NO_NUMBER)),
    Case("bytes that are no UTF-8", rows(ROW).encode() + volt("~").encode().replace(b"~", b"\xff\xfe"), (AT,), {3: NO_NUMBER}),
    # numbers
    Case("quoted numbers", rows(ROW.replace("170.5", '"170.5"').replace(",@,", ',"@",')), (AT,)),
    Case("blanks around numbers", rows(volt(" 170.5 ")), (AT,)),
    Case("scientific notation", rows(volt("1.705E+2")), (AT,)),
    Case("a plus sign", rows(volt("+170.5")), (AT,)),
    Case("a decimal comma", **one(volt("170,5"), "7 fields where 6 are expected")),
    Case("a quoted decimal comma", **one(volt('"170,5"'), NO_NUMBER)),
    Case("thousands apart", **one(volt('"1,000.5"'), NO_NUMBER)),
    Case("a unit", **one(volt("170.5V"), NO_NUMBER)),
    Case("Arabic digits", **one(volt("\u0661\u0667\u0660"), NO_NUMBER)),
    Case("an underscore", **one(volt("1_70"), NO_NUMBER)),
    Case("a hexadecimal number", **one(volt("0xAA"), NO_NUMBER)),
    Case("NaN", **one(volt("NaN"), "volt is missing")),
    Case("NULL", **one(volt("NULL"), "volt is missing")),
    Case("nothing", **one(volt(""), "volt is missing")),
    Case("infinity", **one(volt("inf"), "is not finite")),
    Case("minus infinity", **one(volt("-Infinity"), "is not finite")),
    Case("an overflow", **one(volt("1e999"), "is not finite")),
    Case("an underflow", rows(volt("1e-999")), (AT,)),
    Case("a negative reading", **one(volt("-0.1"), "volt is -0.1, valid: volt BETWEEN 0.0 AND 1000.0")),
    Case("an absurd reading", **one(volt("1e6"), "valid: volt BETWEEN 0.0 AND 1000.0")),
    Case("the number of a sensor that is off", **one(volt("-9999"), "valid: volt BETWEEN 0.0 AND 1000.0")),
    Case("a machine with a fraction", **one(ROW.replace("@", "@.5"), NO_WHOLE)),
    Case("a machine beyond 64 bits", **one(ROW.replace("@", "9223372036854775808"), NO_WHOLE)),
    Case("a machine that is a word", **one(ROW.replace("@", "press"), NO_WHOLE)),
    Case("an unknown machine", **one(ROW.replace("@", "99999999"), "machine 99999999 is not in the fleet that day")),
    Case("a negative machine", **one(ROW.replace("@", "-1"), "machine -1 is not in the fleet that day")),
    # times
    Case("ISO time", rows(at(f"{DAY}T06:00:00")), (AT,)),
    Case("a time in UTC by name", rows(at(f"{DAY}T06:00:00Z")), (AT,)),
    Case("an offset", rows(at(f"{DAY}T06:00:00+02:00")), (f"{DAY} 04:00:00",)),
    Case("an offset into another day", rows(at(f"{DAY} 01:00:00 +0330")), ("2015-03-27 21:30:00",)),
    Case("an offset that no zone has", **one(at(f"{DAY}T06:00:00+23:00"), NO_TIME)),
    Case("a zone by name", **one(at(f"{AT} Europe/Berlin"), NO_TIME)),
    Case("an hour that daylight saving leaves out", rows(at("2015-03-29 02:30:00")), ("2015-03-29 02:30:00",)),
    Case(
        "an hour that daylight saving repeats",
        rows(at("2015-03-29T02:30:00+01:00"), at("2015-03-29T02:30:00+02:00")),
        ("2015-03-29 01:30:00", "2015-03-29 00:30:00"),
    ),
    Case("fractions of a second", rows(at(f"{AT}.25")), (f"{AT}.250000",)),
    Case("nanoseconds", rows(at(f"{AT}.123456789")), (f"{AT}.123456",)),
    Case("the reference's own form", rows(at("3/28/2015 6:00:00 AM")), (AT,)),
    Case(
        "forms of time mixed",
        rows(ROW, at("3/28/2015 7:00:00 AM"), at(f"{DAY}T08:00Z")),
        (AT, f"{DAY} 07:00:00", f"{DAY} 08:00:00"),
    ),
    Case("a date alone", rows(at(DAY)), (f"{DAY} 00:00:00",)),
    Case("seconds since 1970", **one(at("1427522400"), NO_TIME)),
    Case("the days of a spreadsheet", **one(at("42091.25"), NO_TIME)),
    Case("the day first", **one(at("28/03/2015 06:00:00"), NO_TIME)),
    Case("month 13", **one(at("2015-13-01 06:00:00"), NO_TIME)),
    Case("30 February", **one(at("2015-02-30 06:00:00"), NO_TIME)),
    Case("hour 24", **one(at(f"{DAY} 24:00:00"), NO_TIME)),
    Case("a leap second", **one(at(f"{DAY} 06:00:60"), NO_TIME)),
    Case("year 1", **one(at("0001-01-01 00:00:00"), "is before 1970")),
    Case("year 0", **one(at("0000-01-01 00:00:00"), NO_TIME)),
    Case("a clock that was never set", **one(at("1970-01-01 00:00:00"), "before the first day partition (2015-03-27)")),
    Case("year 9999", rows(ROW, at("9999-12-31 23:00:00")), (AT,), named="1 rows are of days to come, up to 9999-12-31"),
    Case("year 10000", **one(at("10000-01-01 00:00:00"), NO_TIME)),
    Case("no time", **one(at(""), "observed_at is missing")),
    Case("a time and more", **one(at(f"{AT} approx."), NO_TIME)),
    # keys
    Case("a row twice", rows(ROW, ROW), (AT,), duplicates=1),
    Case("a row twice in two forms", rows(ROW, volt("1.705e2")), (AT,), duplicates=1),
    Case("one key with two values", rows(ROW, volt("171")), (), {2: TWICE, 3: TWICE}),
    Case("one key with a good and a bad value", rows(ROW, volt("high")), (AT,), {3: NO_NUMBER}),
    # other tables
    Case(
        "an unknown error code",
        rows(EVENT + "error1", EVENT + "error9", table="errors"),
        (AT,),
        {3: "error_code is error9, valid"},
        table="errors",
    ),
    Case(
        "an error code in capitals",
        rows(EVENT + "ERROR1", table="errors"),
        (),
        {2: "error_code is ERROR1, valid"},
        table="errors",
    ),
    Case("an error code with a NUL", rows(EVENT + "error1\0", table="errors"), (), {2: "valid: error_code IN"}, table="errors"),
    Case(
        "an error code that is SQL",
        rows(EVENT + "x'); DROP TABLE errors; --", table="errors"),
        (),
        {2: "DROP TABLE"},
        table="errors",
    ),
    Case(
        "an error code that is a formula",
        rows(EVENT + "=HYPERLINK(0)", table="errors"),
        (),
        {2: "=HYPERLINK(0)"},
        table="errors",
    ),
    Case(
        "an unknown component",
        rows(EVENT + "comp7", table="maintenance"),
        (),
        {2: "component is comp7, valid"},
        table="maintenance",
    ),
    Case(
        "a failure of an unknown component",
        rows(EVENT + "pump", table="failures"),
        (),
        {2: "component is pump, valid"},
        table="failures",
    ),
    Case(
        "a failure of an unknown machine",
        rows(f"{AT},99999998,comp1", table="failures"),
        (),
        {2: "machine 99999998 is not in the fleet"},
        table="failures",
    ),
    Case("a failure twice", rows(EVENT + "comp1", EVENT + "comp1", table="failures"), (AT,), duplicates=1, table="failures"),
    # fleet lists, of which each row stands on each day
    Case("a machine of a strange model", rows("@,<b>x</b>,3", table="machines"), ("<b>x</b>",), table="machines"),
    Case("a machine without model", rows("@,,3", table="machines"), (), {2: "machine_model is missing"}, table="machines"),
    Case("a machine not yet built", rows("@,model3,-1", table="machines"), (), {2: "age_years is -1"}, table="machines"),
    Case("a machine of great age", rows("@,model3,9999999999", table="machines"), (), {2: NO_WHOLE}, table="machines"),
    Case("a machine twice", rows("@,model3,3", "@,model4,3", table="machines"), (), {2: TWICE, 3: TWICE}, table="machines"),
    Case(
        "a fleet list of two columns",
        "machineID,model\n@,model3\n",
        named=NO_COLUMNS.replace("telemetry", "machines"),
        table="machines",
    ),
    # Parquet
    Case("Parquet", parquet(), (AT,), name="p.parquet"),
    Case("Parquet with times as text", parquet(datetime=[AT]), (AT,), name="p-text.parquet"),
    Case(
        "Parquet with times in nanoseconds",
        parquet(datetime=pa.array([utc(f"{DAY} 06:00")], pa.timestamp("ns"))),
        (AT,),
        name="p-ns.parquet",
    ),
    Case(
        "Parquet with times of another zone",
        parquet(datetime=pa.array([utc(f"{DAY} 06:00")], pa.timestamp("us", "UTC")).cast(pa.timestamp("us", "Asia/Kolkata"))),
        (AT,),
        name="p-zone.parquet",
    ),
    Case("Parquet with numbers as text", parquet(volt=["170.5"]), (AT,), name="p-number.parquet"),
    Case("Parquet with words for numbers", parquet(volt=["high"]), (), {1: NO_NUMBER}, name="p-word.parquet"),
    Case(
        "Parquet with a null", parquet(volt=pa.array([None], pa.float64())), (), {1: "volt is missing"}, name="p-null.parquet"
    ),
    Case("Parquet with a column of nulls", parquet(volt=pa.nulls(1)), (), {1: "volt is missing"}, name="p-nulls.parquet"),
    Case("Parquet with whole times", parquet(datetime=[1427522400]), named="is of type int64", name="p-epoch.parquet"),
    Case("Parquet with lists", parquet(volt=[[170.5]]), named="is of type list", name="p-list.parquet"),
    Case("Parquet with a column too few", parquet(volt=None), named=NO_COLUMNS, name="p-few.parquet"),
    Case("Parquet with a column too many", parquet(oil=[1.0]), named=NO_COLUMNS, name="p-many.parquet"),
    Case("Parquet cut short", parquet(cut=20), named="can't be read", name="p-cut.parquet"),
    Case("Parquet named csv", parquet(), named=NO_COLUMNS, name="p-named.csv"),
    Case("CSV named Parquet", rows(ROW), named="can't be read", name="csv.parquet"),
    Case("an empty Parquet", "", named="can't be read", name="p-empty.parquet"),
    # what is no file
    Case("a link", link, named="a link: put the file itself there", name="link.csv"),
    Case("a folder", folder, named="a folder: put its files beside it", name="folder.csv"),
    Case("a pipe", pipe, named="passed over, it is no file", name="pipe.csv"),
    Case("another format", rows(ROW), named="passed over, it is none of .csv, .csv.gz, .parquet", name="telemetry.xlsx"),
    # names
    name_case("with a blank", "hall 2 telemetry.csv"),
    name_case("with quotes", "o'hara\"s.csv"),
    name_case("with a line end", "two\nlines.csv"),
    name_case("with a tab and a bell", "tab\tbell\x07.csv"),
    name_case("with dots", "a..b...csv"),
    name_case("of a path", "..%2f..%2fetc%2fpasswd.csv".lstrip(".")),
    name_case("of a pattern", "*[a-z]?{x}.csv"),
    name_case("of a shell", "$(reboot);`id`&.csv"),
    name_case("of markup", "<script>alert(1)<&sol;script>.csv"),
    name_case("in Chinese", "\u632f\u52a8\u6570\u636e.csv"),
    name_case("with an emoji", "\U0001f525.csv"),
    name_case("that is no UTF-8", os.fsdecode(b"caf\xe9.csv")),
    name_case("that looks like it", "caf\\xe9.csv"),
    name_case("of a Windows path", "C:\\..\\b.csv"),
    name_case("of an option", "-rf --.csv"),
    Case("name of dots alone", rows(ROW), name="...csv"),  # hidden, as what is still being written
    name_case("in capitals", "TELEMETRY.CSV"),
    name_case("of 255 bytes", "n" * 251 + ".csv"),
)
