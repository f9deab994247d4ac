"""A lake that one engine wrote and the other continues: rows, rules, properties, versions, checkpoints, clearing up."""

import datetime as dt
import itertools
from pathlib import Path

import pytest
from pyspark.errors import PySparkException
from pyspark.sql import functions as F

from pdm_assets.resources.lake import Lake
from pdm_assets.schemas.raw import ERRORS, TELEMETRY
from pdm_assets.schemas.table import DATE
from pdm_assets_tests import builders
from pdm_assets_tests.builders import day
from pdm_assets_tests.spark_server import connect_server, engine_at

FIRST = day("2015-01-01")
COMMITS = {"duckdb": 120, "spark": 13}  # beyond a checkpoint: delta-rs writes one at every hundredth, Spark at every tenth


@pytest.fixture(scope="module")
def engines(engine, real, tmp_path_factory):
    """The platform's resource with each engine, by its name."""
    with connect_server(tmp_path_factory.mktemp("server")) as server, engine_at(server, Path(engine.data)) as theirs:
        yield {"duckdb": engine, "spark": theirs}


@pytest.fixture(params=list(itertools.permutations(["duckdb", "spark"])), ids=" then ".join)
def lakes(request, engines, tmp_path):
    """One lake, by the engine that writes it and by the one that continues."""
    return [Lake(spark=engines[name], root=str(tmp_path / "lake")) for name in request.param]


def readings(lake, on, volt):
    rows = [(machine, f"{on} {hour:02d}:30", volt + machine) for machine in (2, 1) for hour in range(3)]
    return builders.telemetry(lake.spark.spark_session, rows)


def write(lake, on, volt):
    return lake.replace_days(TELEMETRY, readings(lake, on, volt), on, on + dt.timedelta(days=1), {"volt": volt})


def held(lake, *days):
    rows = lake.read(TELEMETRY, days[0], days[-1] + dt.timedelta(days=1)).orderBy("observed_at", "machine_id").collect()
    return [(row["machine_id"], row["observed_at"], row["volt"], row["date"]) for row in rows]


def checkpoints(lake):
    return {path.name for path in (Path(lake.root) / TELEMETRY.key / "_delta_log").glob("*.checkpoint.parquet")}


def test_one_continues_what_the_other_wrote(lakes):
    ours, theirs = lakes
    for number in range(COMMITS[ours.spark.engine]):
        write(ours, FIRST + dt.timedelta(days=number % 2), 100.0 + number)
    days = [FIRST + dt.timedelta(days=n) for n in range(3)]
    written = held(ours, *days)
    assert len(written) == 12
    assert held(theirs, *days) == written
    assert theirs.properties(TELEMETRY) == ours.properties(TELEMETRY)
    assert theirs.rows_by_day(TELEMETRY, days[0], days[2]) == {days[0]: 6, days[1]: 6}
    assert checkpoints(ours)
    version, before = ours.version(TELEMETRY), checkpoints(ours)
    for number in range(COMMITS[theirs.spark.engine]):
        write(theirs, days[2], 200.0 + number)
    last = 200.0 + COMMITS[theirs.spark.engine] - 1
    assert checkpoints(ours) > before
    assert held(ours, *days[:2]) == written
    assert {row[2] for row in held(ours, days[2])} == {last + 1, last + 2}
    # a replacement, an older version, and what is restored
    write(ours, days[0], 300.0)
    assert {row[2] for row in held(theirs, days[0])} == {301.0, 302.0}
    as_it_was = theirs.read(TELEMETRY, days[0], days[1], version=version).collect()
    assert {row["volt"] for row in as_it_was} == {row[2] for row in written if row[3] == days[0]}
    theirs.spark.tables.restore(theirs.table_name(TELEMETRY), version, "back")
    assert held(ours, *days) == written
    ours.spark.tables.compact(ours.table_name(TELEMETRY), days[:1], DATE)
    theirs.spark.tables.vacuum(theirs.table_name(TELEMETRY))
    assert held(ours, *days) == held(theirs, *days) == written


def test_the_rules_of_a_table_hold_for_whoever_writes_it(lakes):
    ours, theirs = lakes
    write(ours, FIRST, 100.0)
    after = held(ours, FIRST)
    for what in (lambda f: f.withColumn("volt", F.lit(-1.0)), lambda f: f.withColumn("machine_id", F.lit(None).cast("long"))):
        with pytest.raises(PySparkException):
            theirs.replace_days(TELEMETRY, what(readings(theirs, FIRST, 1.0)), FIRST, FIRST + dt.timedelta(days=1), {})
    with pytest.raises(PySparkException):  # a row of another day
        theirs.replace_days(
            TELEMETRY, readings(theirs, FIRST, 1.0), FIRST + dt.timedelta(days=1), FIRST + dt.timedelta(days=2), {}
        )
    assert held(ours, FIRST) == held(theirs, FIRST) == after


def test_times_are_the_same_to_the_microsecond_in_files_of_both(lakes):
    """Spark writes INT96 where it is not told otherwise, and cuts statistics of times off to milliseconds."""
    ours, theirs = lakes
    times = [dt.datetime(2015, 1, 1, 5, 0, 0, micros, tzinfo=dt.UTC) for micros in (0, 1, 999, 1999, 999_999)]
    rows = [(1, when.strftime("%Y-%m-%d %H:%M:%S.%f"), f"error{n + 1}") for n, when in enumerate(times)]
    ours.replace_days(ERRORS, builders.errors(ours.spark.spark_session, rows), FIRST, FIRST + dt.timedelta(days=1), {})
    for bound in times:
        for lake in lakes:
            late = lake.read(ERRORS).where(F.col("occurred_at") >= F.lit(bound)).collect()
            assert sorted(row["occurred_at"].astimezone(dt.UTC) for row in late) == [when for when in times if when >= bound]
            early = lake.read(ERRORS).where(F.col("occurred_at") < F.lit(bound)).count()
            assert early == times.index(bound)
    assert theirs.read(ERRORS).count() == len(times)
