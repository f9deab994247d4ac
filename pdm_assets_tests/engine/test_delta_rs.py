"""Delta tables by delta-rs: who writes at the same time, a writer that is killed, what is refused, what is read of a table."""

import datetime as dt
import signal
import subprocess
import sys

import pyarrow as pa
import pytest
from deltalake import write_deltalake
from pyspark.errors import PySparkException, UnsupportedOperationException
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pdm_assets.engine import delta
from pdm_assets.resources.lake import Lake
from pdm_assets.schemas.raw import TELEMETRY
from pdm_assets.schemas.table import DATE
from pdm_assets_tests import builders
from pdm_assets_tests.builders import day

FIRST = day("2015-01-01")
NEXT, LAST = FIRST + dt.timedelta(days=1), FIRST + dt.timedelta(days=2)
DAYS = [FIRST, NEXT, LAST]


@pytest.fixture
def lake(tmp_path, engine):
    return Lake(spark=engine, root=str(tmp_path / "lake"))


def write(lake, on, volt):
    rows = builders.telemetry(lake.spark.spark_session, [(1, f"{on} 05:00", volt)])
    return lake.replace_days(TELEMETRY, rows, on, on + dt.timedelta(days=1), {})


def volts(lake):
    return sorted(row["volt"] for row in lake.read(TELEMETRY).collect())


WRITER = """
import datetime as dt, sys
import pyarrow as pa
from pdm_assets.engine.delta import DeltaRs
location, on, volt = sys.argv[1], sys.argv[2], float(sys.argv[3])
tables = DeltaRs()
schema = pa.schema(tables.open(location).schema().to_arrow())
day = dt.date.fromisoformat(on)
at = dt.datetime(day.year, day.month, day.day, 5, tzinfo=dt.UTC)
def rows():
    for n in range(3):
        row = {name: volt for name in ("volt", "rotate", "pressure", "vibration")}
        yield pa.RecordBatch.from_pylist([row | {"machine_id": n, "observed_at": at, "date": day}], schema=schema)
        print("made", n, flush=True)
        sys.stdin.readline()
reader = pa.RecordBatchReader.from_batches(schema, rows())
end = day + dt.timedelta(days=1)
tables.write(location, reader, mode="overwrite", options={"replaceWhere": f"date >= '{day}' AND date < '{end}'"})
print("committed", flush=True)
"""


class Writer:
    """Another process that replaces a day, a batch at each word."""

    def __init__(self, lake, on, volt):
        arguments = [lake.table_name(TELEMETRY), on.isoformat(), str(volt), "0"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout.readline() == "made 0\n"

    def go_on(self):
        said, errors = self.process.communicate("\n\n\n", timeout=60)
        return "committed" in said, errors

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=60)


def test_of_a_writer_that_is_killed_nothing_is_seen(lake):
    write(lake, FIRST, 100.0)
    writer = Writer(lake, FIRST, 200.0)
    writer.kill()
    assert volts(lake) == [100.0]
    write(lake, FIRST, 300.0)
    assert volts(lake) == [300.0]


def test_of_two_processes_that_replace_the_same_day_one_is_refused(lake):
    write(lake, FIRST, 100.0)
    writer = Writer(lake, FIRST, 200.0)
    write(lake, FIRST, 300.0)
    committed, errors = writer.go_on()
    assert not committed
    assert "DELTA_CONCURRENT_WRITE" in errors
    assert volts(lake) == [300.0]


def test_two_processes_that_replace_other_days_both_commit(lake):
    write(lake, FIRST, 100.0)
    write(lake, NEXT, 100.0)
    writer = Writer(lake, NEXT, 200.0)
    write(lake, FIRST, 300.0)
    committed, errors = writer.go_on()
    assert committed, errors
    assert volts(lake) == [200.0, 200.0, 200.0, 300.0]


def test_a_table_with_no_more_than_it_needs_is_read_and_others_are_refused_by_name(lake, tmp_path):
    """Deletion vectors take rows away that the files still have: a reader that does not know them would show these."""
    location = str(tmp_path / "other")
    write_deltalake(location, pa.table({"a": [1, 2]}), configuration={"delta.enableDeletionVectors": "true"})
    spark = lake.spark.spark_session
    with pytest.raises(UnsupportedOperationException, match=r"other, which needs .*[dD]eletionVectors.*use the engine `spark`"):
        spark.read.table(f"delta.`{location}`").collect()


def test_a_column_that_older_files_lack_is_null_there(lake):
    spark, location = lake.spark.spark_session, lake.table_name(TELEMETRY)
    write(lake, FIRST, 100.0)
    lake.spark.tables.add_column(location, T.StructField("gauge", T.DoubleType(), True, {"comment": "a new one"}))
    found = spark.read.table(f"delta.`{location}`").collect()
    assert [(row["volt"], row["gauge"]) for row in found] == [(100.0, None)]


def test_a_frame_of_other_columns_is_refused_with_both(lake):
    write(lake, FIRST, 100.0)
    frame = lake.spark.spark_session.createDataFrame([(1,)], "machine bigint")
    with pytest.raises(PySparkException, match=r"\['machine'\] do not fit .*machine_id"):
        frame.write.format("delta").mode("append").save(lake.table_name(TELEMETRY))


def time_on(on, hour=5):
    return dt.datetime(on.year, on.month, on.day, hour, tzinfo=dt.UTC)


# A condition, the days whose files may have such rows as far as the log says, and the days of the rows.
PRUNED = {
    "a day": (lambda: F.col(DATE) == F.lit(FIRST), [FIRST], [FIRST]),
    "a day as a text": (lambda: F.col(DATE) == "2015-01-01", DAYS, [FIRST]),
    "a day against a time": (lambda: F.col(DATE) == F.lit(time_on(NEXT, 0)), DAYS, [NEXT]),
    "days": (lambda: F.col(DATE).isin(FIRST, NEXT), [FIRST, NEXT], [FIRST, NEXT]),
    "from a day on": (lambda: F.lit(NEXT) <= F.col(DATE), [NEXT, LAST], [NEXT, LAST]),
    "a range": (lambda: (F.col(DATE) > F.lit(FIRST)) & (F.col(DATE) < F.lit(LAST)), [NEXT], [NEXT]),
    "either": (lambda: (F.col(DATE) == F.lit(FIRST)) | (F.col(DATE) == F.lit(LAST)), DAYS, [FIRST, LAST]),
    "not a day": (lambda: F.col(DATE) != F.lit(FIRST), DAYS, [NEXT, LAST]),
    "a time": (lambda: F.col("observed_at") >= F.lit(time_on(LAST)), [LAST], [LAST]),
    "a time of a day": (lambda: F.col("observed_at") == F.lit(time_on(NEXT)), [NEXT], [NEXT]),
    "times": (lambda: F.col("observed_at").isin(time_on(FIRST), time_on(FIRST, 6)), [FIRST], [FIRST]),
    "a number that is": (lambda: F.col("machine_id") == 1, DAYS, DAYS),
    "a number that is not": (lambda: F.col("machine_id") == 99, [], []),
    "a number as a double": (lambda: F.col("machine_id") == F.lit(1).cast("double"), DAYS, DAYS),
    "a reading": (lambda: F.col("volt") > 250.0, DAYS, [LAST]),
    "no day": (lambda: F.col(DATE).isNull(), DAYS, []),
}


@pytest.fixture(scope="module")
def three_days(tmp_path_factory, engine):
    lake = Lake(spark=engine, root=str(tmp_path_factory.mktemp("lake")))
    for number, on in enumerate(DAYS):
        write(lake, on, 100.0 * (number + 1))
    return lake


@pytest.mark.parametrize("case", PRUNED)
def test_files_are_left_out_by_what_the_log_says_and_rows_never(three_days, monkeypatch, case):
    condition, opened, expected = PRUNED[case]
    read, files = [], delta._files
    monkeypatch.setattr(delta, "_files", lambda *arguments: read.append(files(*arguments)) or read[-1])
    found = three_days.read(TELEMETRY).where(condition()).collect()
    assert sorted(row[DATE] for row in found) == expected
    assert sorted(path.split("/")[0] for path in read[-1]) == [f"date={on}" for on in opened]
