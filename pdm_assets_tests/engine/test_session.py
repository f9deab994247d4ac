"""A session of the DuckDB engine: memory that is not enough, two streams at once, what a query leaves behind, how it ends."""

import pytest
from pyspark.errors import PySparkException
from pyspark.sql import Window
from pyspark.sql import functions as F

from pdm_assets.engine.duckdb.channel import connect
from pdm_assets.engine.duckdb.session import Limits

MANY = 4_000_000


@pytest.fixture(autouse=True)
def _columns_are_for_connect(spark):
    """pyspark.sql.functions asks the environment whether it makes columns for a JVM: the platform's session has set it."""


@pytest.fixture
def small(tmp_path):
    spill = tmp_path / "spill"
    session = connect(Limits(memory_mb=100, spill=spill))
    yield session, spill
    session.stop()


def sums(session, count=1000):
    frame = session.range(count).select((F.col("id") % 7).alias("k"), (F.col("id") * 0.1).alias("v"))
    return frame.select("k", F.sum("v").over(Window.partitionBy("k").orderBy("v")).alias("total"))


def test_more_rows_than_fit_the_memory_are_sorted_on_the_disk_and_nothing_stays_there(small):
    session, spill = small
    wide = session.range(MANY).select(
        "id", (F.col("id") % 1000).alias("k"), (-F.col("id")).alias("back"), F.lit("x" * 16).alias("t")
    )
    frame = wide.select("back", F.row_number().over(Window.partitionBy("k").orderBy("back")).alias("n"), "t")
    most = frame.agg(F.max("n").alias("n"), F.count("*").alias("rows")).first()
    assert (most["n"], most["rows"]) == (MANY // 1000, MANY)
    left = [path for path in spill.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in left) < 4096, left  # DuckDB's note of whose folder it is


def test_what_neither_memory_nor_disk_hold_is_an_error_and_the_session_goes_on(tmp_path):
    (tmp_path / "spill").write_text("a file where the folder should be")
    session = connect(Limits(memory_mb=30, spill=tmp_path / "spill"))
    with pytest.raises(PySparkException):
        session.range(MANY).orderBy(F.desc("id")).toArrow()
    assert session.range(3).count() == 3
    session.stop()


def test_two_streams_of_a_session_do_not_disturb_each_other(small):
    session, _ = small
    one, other = session.range(200_000), session.range(200_000).select((F.col("id") * 2).alias("id"))
    pairs = zip(one.toLocalIterator(), other.toLocalIterator(), strict=True)
    assert all(b["id"] == 2 * a["id"] for a, b in pairs)


def test_sums_of_doubles_are_the_same_to_the_last_bit_every_time(small):
    session, _ = small
    assert len({repr(sums(session, 50_000).collect()) for _ in range(3)}) == 1


def test_what_a_python_function_raises_is_named(small):
    session, _ = small

    def broken(batches):
        raise ValueError("no such component")
        yield from batches

    with pytest.raises(PySparkException, match="ValueError: no such component"):
        session.range(3).mapInArrow(broken, "id bigint").collect()
