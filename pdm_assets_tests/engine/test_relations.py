"""Each relation and window on both engines, plans drawn at random, and what the DuckDB engine refuses."""

import datetime as dt
from collections.abc import Callable, Mapping
from decimal import Decimal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.errors import PySparkException, UnsupportedOperationException
from pyspark.sql import DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pdm_assets.engine.duckdb import functions, relations
from pdm_assets_tests.engine.both import Make, assert_same, result_of

NAN = float("nan")
SCHEMA = (
    T.StructType()
    .add("k", T.LongType())
    .add("g", T.StringType())
    .add("v", T.DoubleType())
    .add("n", T.IntegerType())
    .add("t", T.TimestampType())
    .add("d", T.DateType())
)


def at(hour: int) -> dt.datetime:
    return dt.datetime(2015, 1, 1, tzinfo=dt.UTC) + dt.timedelta(hours=hour)


ROWS = [
    (1, "a", 1.5, 1, at(0), dt.date(2015, 1, 1)),
    (1, "a", None, 2, at(1), dt.date(2015, 1, 1)),
    (1, "b", NAN, None, at(2), None),
    (2, None, -0.0, 3, at(3), dt.date(2015, 1, 2)),
    (4, "b", 0.0, 3, None, dt.date(2015, 1, 3)),
    (None, "a", 2.5, 4, at(5), dt.date(2015, 1, 2)),
    (None, None, None, None, None, None),
    (3, "é", -1.5, -7, at(-5), dt.date(1969, 1, 1)),
    (1, "a", 1.5, 1, at(0), dt.date(2015, 1, 1)),
]
OTHER = [(1, "one", 10.0), (2, "two", NAN), (2, "zwei", None), (None, "none", 0.0), (9, "nine", 9.0)]
OTHER_SCHEMA = "k bigint, name string, w double"


def rows(session: SparkSession) -> DataFrame:
    return session.createDataFrame(ROWS, SCHEMA)


def other(session: SparkSession) -> DataFrame:
    return session.createDataFrame(OTHER, OTHER_SCHEMA)


def over(*keys: str, order: str = "n", **frame: tuple[int, int]) -> Window:
    window = Window.partitionBy(*keys).orderBy(order, "t", "v")
    for kind, (first, last) in frame.items():
        by_rows = kind == "rows"
        ordered = window if by_rows else Window.partitionBy(*keys).orderBy(order)
        window = ordered.rowsBetween(first, last) if by_rows else ordered.rangeBetween(first, last)
    return window


def windowed(column, window) -> Make:
    return lambda s: rows(s).select("*", column.over(window).alias("found"))


START, NOW, END = Window.unboundedPreceding, Window.currentRow, Window.unboundedFollowing


def cases() -> dict[str, Make]:
    """Made in a function: a column is for the engine whose session is there, and Spark's workers do not have this module."""

    def twice(batches):
        for batch in batches:
            yield pa.RecordBatch.from_arrays(
                [batch.column("k"), pc.multiply(batch.column("n"), pa.scalar(2, pa.int32()))], ["k", "twice"]
            )

    def nothing(batches):
        for _ in batches:
            yield from ()

    found: dict[str, Make] = {
        "createDataFrame of rows": rows,
        "createDataFrame of nothing": lambda s: s.createDataFrame([], SCHEMA),
        "createDataFrame of pandas": lambda s: s.createDataFrame(pd.DataFrame({"a": [1, 2], "b": ["x", None]})),
        "createDataFrame of Arrow": lambda s: s.createDataFrame(
            pa.table({"a": [1, None], "t": [at(0), None], "f": [0.5, NAN]})
        ),
        "createDataFrame of structs": lambda s: s.createDataFrame(
            [((1, "a"), [1, 2]), (None, None)],
            T.StructType()
            .add("s", T.StructType().add("x", T.LongType()).add("y", T.StringType()))
            .add("l", T.ArrayType(T.LongType())),
        ),
        "range": lambda s: s.range(3, 9, 2),
        "select *": lambda s: rows(s).select("*", (F.col("n") + 1).alias("next")),
        "a name in another case": lambda s: rows(s).select("K", F.col("G").alias("h")),
        "where of null": lambda s: rows(s).where(F.col("v") > 0),
        "where of NaN": lambda s: rows(s).where(F.col("v") >= 1.5),
        "where times": lambda s: rows(s).where((F.col("t") >= F.lit(at(1))) & (F.col("d") < F.lit(dt.date(2015, 1, 2)))),
        "where a text is a date": lambda s: rows(s).where(F.col("d") == "2015-01-02"),
        "withColumn anew": lambda s: rows(s).withColumn("n", F.col("n") * 2).withColumn("m", F.col("n")),
        "withColumns see what was": lambda s: rows(s).withColumns({"n": F.col("k"), "k": F.col("n").cast("long")}),
        "withColumnRenamed": lambda s: rows(s).withColumnRenamed("g", "group").withColumnRenamed("not there", "x"),
        "toDF": lambda s: other(s).toDF("a", "b", "c"),
        "drop": lambda s: rows(s).drop("v", "t", "not there"),
        "sort within partitions": lambda s: rows(s).sortWithinPartitions("n"),
        "limit of all": lambda s: rows(s).limit(99),
        "limit of nothing": lambda s: rows(s).limit(0),
        "repartition": lambda s: rows(s).repartition(2),
        "repartition by a column": lambda s: rows(s).repartition("k"),
        "coalesce": lambda s: rows(s).coalesce(1),
        "hint": lambda s: rows(s).hint("broadcast"),
        "alias": lambda s: rows(s).alias("a"),
        "division may be null": lambda s: s.range(3).select(F.col("id") / 2, F.col("id") % 2, F.pmod("id", F.lit(2))),
        "distinct": lambda s: rows(s).distinct(),
        "dropDuplicates": lambda s: rows(s).select("k", "v").dropDuplicates(),
        "dropna": lambda s: rows(s).dropna(),
        "dropna of all": lambda s: rows(s).dropna("all"),
        "dropna of some": lambda s: rows(s).dropna(subset=["v", "g"]),
        "union": lambda s: rows(s).select("k", "g").union(rows(s).select("n", "g")),
        "unionByName": lambda s: rows(s).select("k", "g").unionByName(other(s).select(F.col("name").alias("g"), "k")),
        "unionByName of missing": lambda s: rows(s).select("k", "g").unionByName(other(s), allowMissingColumns=True),
        "union of three": lambda s: rows(s).select("k").union(rows(s).select("k")).union(other(s).select("k")),
        "groupBy": lambda s: rows(s).groupBy("k").agg(F.count(F.lit(1)).alias("rows"), F.max("v").alias("v")),
        "groupBy NaN and -0.0": lambda s: rows(s).groupBy("v").agg(F.count("*").alias("rows")),
        "groupBy an expression": lambda s: rows(s).groupBy((F.col("n") % 2).alias("odd")).agg(F.sum("n").alias("n")),
        "groupBy of nothing": lambda s: rows(s).where("n > 99").groupBy("k").agg(F.sum("n").alias("n")),
        "agg of nothing": lambda s: (
            rows(s)
            .where("n > 99")
            .agg(F.sum("n").alias("n"), F.count("n").alias("c"), F.collect_list("n").alias("l"), F.max("t").alias("t"))
        ),
        "groupBy and count": lambda s: rows(s).groupBy("k", "g").count(),
        "explode": lambda s: rows(s).select("k", F.explode(F.array("n", F.lit(5))).alias("item")),
        "inline": lambda s: rows(s).select(
            "g", F.inline(F.array(F.struct("k", "n"), F.struct(F.lit(1).cast("long").alias("k"), F.lit(2).alias("n"))))
        ),
        "mapInArrow": lambda s: rows(s).mapInArrow(twice, "k bigint, twice int"),
        "mapInArrow and on": lambda s: rows(s).mapInArrow(twice, "k bigint, twice int").where("twice > 2").select("twice"),
        "mapInArrow of nothing": lambda s: rows(s).mapInArrow(nothing, "k bigint"),
        "row_number": windowed(F.row_number(), over("k")),
        "row_number by NaN, -0.0 and null": windowed(F.row_number(), Window.partitionBy("v").orderBy("n", "t", "k")),
        "row_number from the last": lambda s: rows(s).select(
            "*", F.row_number().over(Window.partitionBy("k").orderBy(F.desc("v"), F.desc("t"), "n")).alias("found")
        ),
        "last": windowed(F.last("v"), over("k")),
        "last that is known": windowed(F.last("v", ignorenulls=True), over("k")),
        "first that is known": windowed(F.first("g", ignorenulls=True), over("k", rows=(START, END))),
        "sum over a range of numbers": windowed(F.sum("v"), over("g", order="n", range=(-2, 0))),
        "sum over a range of longs": windowed(F.sum("n"), over("g", order="k", range=(-1, 1))),
        "sum of what was before": windowed(F.sum("n"), over("g", rows=(START, -1))),
        "sum of the next": windowed(F.sum("n"), over("g", rows=(1, 2))),
        "sum of all": windowed(F.sum("n"), Window.partitionBy("g")),
        "sum up to its equals": windowed(F.sum("n"), Window.partitionBy("g").orderBy("k")),
    }
    for name in ("lag", "lead"):
        function = getattr(F, name)
        found[name] = windowed(function("v"), over("k"))
        found[f"{name} by 2 or else"] = windowed(function("v", 2, -9.0), over("k"))
    for name in functions.AGGREGATES.keys() - {"collect_list"}:
        function = getattr(F, name)
        for column in {"count_if": ["flag"], "sum": ["v", "n", "k"]}.get(name, list(SCHEMA.names)):
            value = function((F.col("n") > 2) if column == "flag" else F.col(column))
            found[f"{name} of {column}"] = lambda s, value=value: rows(s).groupBy("g").agg(value.alias("found"))
            found[f"{name} of {column} over"] = windowed(value, over("g", rows=(-2, NOW)))
    # In which order it collects is promised by neither engine: one value of each group.
    found["collect_list"] = lambda s: rows(s).groupBy("t").agg(F.collect_list(F.when(F.col("v") != 1.5, F.col("v"))).alias("l"))
    for name in ("min", "max"):
        made = getattr(F, name)(F.struct("n", (F.col("v") + 0.0).alias("v"), "t"))  # DuckDB gives -0.0 of a struct back as 0.0
        found[f"{name} of structs"] = lambda s, made=made: rows(s).groupBy("k").agg(made.alias("found"))
    for how in ("inner", "left", "right", "full", "left_semi", "left_anti"):
        found[f"{how} join"] = lambda s, how=how: rows(s).join(other(s), "k", how)
        found[f"{how} join by two"] = lambda s, how=how: rows(s).join(
            rows(s).where("n > 1").select("k", "g", (F.col("n") * 10).alias("ten")), ["k", "g"], how
        )
        found[f"{how} join by a key that is no first column"] = lambda s, how=how: (
            rows(s).select("n", "k").join(other(s), "K", how)
        )
    # `frame["column"]`, where it is still that column
    found["columns of a frame"] = of_itself(
        lambda d: d.filter(d["n"] > 1).orderBy(d["n"]).select(d["n"], d["k"]).filter(d["n"] < 9)
    )
    found["a column of a frame beside a new one"] = of_itself(lambda d: d.withColumn("new", d["n"] + 1).select(d["n"], "new"))
    found["columns of both sides"] = joined("left", lambda j, left, right: j.select(left["k"], left["n"], right["name"]))
    found["a column of a side to drop"] = joined("inner", lambda j, left, right: j.drop(right["name"]))
    found["a text like SQL"] = lambda s: rows(s).groupBy("k").agg(F.max(F.lit("hit /*over*/ -- '")).alias("found"))
    return found


@pytest.fixture(scope="module")
def made(duck: SparkSession) -> Mapping[str, Make]:
    """The cases; they need the engines' session."""
    return cases()


def test_a_relation_is_what_spark_makes_of_it(duck, real, made, subtests):
    assert len(made) > 80
    for name, make in made.items():
        with subtests.test(name):
            found, expected = result_of(duck, make), result_of(real, make)
            assert found.error is None
            assert_same(found, expected)


@pytest.mark.parametrize("column", SCHEMA.names)
@pytest.mark.parametrize("order", ["asc", "desc", "asc_nulls_last", "desc_nulls_first"])
def test_an_order_is_sparks(duck, real, column, order):
    def make(session):
        return rows(session).orderBy(getattr(F.col(column), order)(), "n", "t", "k", "g").limit(5)

    assert_same(result_of(duck, make, in_order=True), result_of(real, make, in_order=True))


# What Spark has and this engine does not; it says so by name, and gives no other result.
def joined(how: str, then: Callable[[DataFrame, DataFrame, DataFrame], DataFrame]) -> Make:
    """What is made of a join, given it and its two sides."""

    def made(session: SparkSession) -> DataFrame:
        left, right = rows(session), other(session)
        return then(left.join(right, "k", how), left, right)

    return made


def of_itself(then: Callable[[DataFrame], DataFrame]) -> Make:
    return lambda session: then(rows(session))


# What `frame["column"]` may mean something else of than the column that has the name now.
OF_ANOTHER_FRAME = {
    "the right key of a left join": joined("left", lambda j, left, right: j.filter(right["k"].isNull())),
    "the right key, counted": joined("left", lambda j, left, right: j.agg(F.count(right["k"]))),
    "the left key of a right join": joined("right", lambda j, left, right: j.select(left["k"])),
    "a key of a full join": joined("full", lambda j, left, right: j.select(left["k"])),
    "a key to drop": joined("left", lambda j, left, right: j.drop(right["k"])),
    "all of one side": joined("inner", lambda j, left, right: j.select(right["*"])),
    "all of an alias": joined("inner", lambda j, left, right: j.alias("a").select("a.*")),
    "a column that was replaced": of_itself(lambda d: d.withColumn("n", F.col("n") + 1).filter(d["n"] > 2)),
    "a column that was made later": of_itself(lambda d: d.drop("n").withColumn("n", F.lit(7)).select(d["n"])),
    "a column under another's name": of_itself(lambda d: d.select(F.col("k").alias("n")).select(d["n"])),
    "a key of a grouping": of_itself(lambda d: d.groupBy("k").agg(F.max("n").alias("n")).select(d["k"])),
    "a frame that is on both sides": of_itself(lambda d: d.select("n", "k").join(d.select("n", "g"), "n").select(d["k"])),
    "a frame of elsewhere": lambda s: rows(s).select(rows(s)["n"]),
}


@pytest.mark.parametrize("case", OF_ANOTHER_FRAME)
def test_a_column_of_a_frame_is_never_another_of_its_name(duck, case):
    with pytest.raises(UnsupportedOperationException, match=r"of that frame|of one of several frames"):
        OF_ANOTHER_FRAME[case](duck).collect()


REFUSED = {
    "a decimal": lambda s: rows(s).select(F.lit(Decimal("1.10")).alias("x")),
    "names that are renamed in turn": lambda s: rows(s).withColumnsRenamed({"k": "q", "q": "z"}),
    "a function": lambda s: rows(s).select(F.soundex("g")),
    "an aggregate": lambda s: rows(s).groupBy("k").agg(F.avg("v")),
    "a distinct aggregate": lambda s: rows(s).groupBy("k").agg(F.count_distinct("v")),
    "a function over a window": lambda s: rows(s).select(F.ntile(2).over(Window.partitionBy("k").orderBy("n"))),
    "a range over doubles": lambda s: rows(s).select(F.sum("n").over(Window.partitionBy("k").orderBy("v").rangeBetween(-1, 0))),
    "a Python function": lambda s: rows(s).select(F.udf(lambda g: g, "string")("g")),
    "a pandas function": lambda s: rows(s).mapInPandas(lambda frames: frames, SCHEMA),
    "SQL": lambda s: s.sql("SELECT 1"),
    "a table by name": lambda s: s.table("telemetry"),
    "a file of another kind": lambda s: s.read.csv("somewhere"),
    "a join by a condition": lambda s: rows(s).join(other(s), rows(s)["n"] == 1),
    "a cross join": lambda s: rows(s).crossJoin(other(s)),
    "intersect": lambda s: rows(s).intersect(rows(s)),
    "a union that drops duplicates": lambda s: rows(s).exceptAll(rows(s)),
    "rollup": lambda s: rows(s).rollup("k").count(),
    "pivot": lambda s: rows(s).groupBy("k").pivot("g").count(),
    "a sample": lambda s: rows(s).sample(0.5),
    "dropDuplicates of some": lambda s: rows(s).dropDuplicates(["k"]),
    "dropna with a threshold": lambda s: rows(s).dropna(thresh=2),
    "two generators": lambda s: rows(s).select(F.explode(F.array("n")), F.explode(F.array("k"))),
    "try_cast": lambda s: rows(s).select(F.col("g").try_cast("int")),
    "a cast to a decimal": lambda s: rows(s).select(F.col("n").cast("decimal(10,2)")),
    "an item of a map": lambda s: rows(s).select(F.create_map("g", "k")),
    "fillna": lambda s: rows(s).fillna(0),
    "describe": lambda s: rows(s).describe(),
    "a time window": lambda s: rows(s).groupBy(F.window("t", "1 hour")).count(),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_engine_does_not_have_it_refuses_by_name(duck, case):
    with pytest.raises(UnsupportedOperationException, match="the DuckDB engine does not support"):
        REFUSED[case](duck).collect()


def test_writes_that_would_lose_rows_or_make_a_table_are_refused(duck, tmp_path):
    frame = duck.range(1)
    for write in (
        lambda: frame.write.parquet(str(tmp_path / "x")),
        lambda: frame.write.format("delta").save(str(tmp_path / "x")),
        lambda: frame.write.format("delta").mode("overwrite").save(str(tmp_path / "x")),
        lambda: frame.write.saveAsTable("x"),
        lambda: frame.createTempView("x"),
    ):
        with pytest.raises(PySparkException):
            write()
    assert not list(tmp_path.iterdir())


def test_settings_that_would_change_results_are_refused_and_unknown_ones_said_to_be(duck):
    with pytest.raises(UnsupportedOperationException, match=r"spark\.sql\.ansi\.enabled=false"):
        duck.conf.set("spark.sql.ansi.enabled", "false")
    assert duck.conf.get("spark.sql.ansi.enabled") == "true"
    with pytest.raises(PySparkException) as told:
        duck.conf.get("spark.nothing")
    assert told.value.getCondition() == "SQL_CONF_NOT_FOUND"
    assert duck.conf.get("spark.nothing", "else") == "else"


def test_a_python_function_that_makes_other_types_than_it_declares_is_refused(duck):
    def wrong(batches):
        for batch in batches:
            yield pa.RecordBatch.from_arrays([pc.cast(batch.column("n"), pa.float64())], ["n"])

    with pytest.raises(PySparkException, match="the column n is double, and int32 is declared"):
        rows(duck).mapInArrow(wrong, "n int").collect()


def test_every_relation_of_the_engine_has_a_case(duck, made, monkeypatch):
    kinds = {name for name in vars(relations.Relations) if name.startswith("_") and not name.startswith("__")}
    kinds -= {"_read"}  # what it reads is tested with those who keep it: test_delta_rs.py, and files in assets/
    used = set()
    for kind in kinds:
        original = getattr(relations.Relations, kind)

        def watched(*arguments, kind=kind, original=original, **named):
            used.add(kind)
            return original(*arguments, **named)

        monkeypatch.setattr(relations.Relations, kind, watched)
    for make in made.values():
        make(duck).schema  # noqa: B018 - resolving is what is watched
    assert kinds - used == set()


# --- plans drawn at random

STEPS = {
    "where": lambda f: f.where((F.col("v") > 0) | F.col("g").isNull()),
    "where times": lambda f: f.where(F.col("t") < F.lit(at(4))),
    "derived": lambda f: f.withColumn("n", F.coalesce(F.col("n"), F.lit(0)) % 5).withColumn("v", F.col("v") * 2),
    "when": lambda f: f.withColumn("v", F.when(F.col("n") > 2, F.col("v")).otherwise(F.lit(0.5))),
    "latest": lambda f: (
        f.groupBy("k", "g")
        .agg(F.max(F.struct("t", "n", (F.col("v") + 0.0).alias("v"), "d")).alias("s"))
        .select("k", "g", F.col("s.v").alias("v"), F.col("s.n").alias("n"), F.col("s.t").alias("t"), F.col("s.d").alias("d"))
    ),
    "distinct": lambda f: f.distinct(),
    "lagged": lambda f: f.withColumn("v", F.lag("v").over(Window.partitionBy("k").orderBy("t", "n", "g", "v", "d"))),
    "filled": lambda f: f.withColumn("g", F.last("g", True).over(Window.partitionBy("k").orderBy("t", "n", "v", "d", "g"))),
    "counted": lambda f: f.withColumn("n", F.count("*").over(Window.partitionBy("k", "g")).cast("int")),
    "doubled": lambda f: f.union(f),
    "semi": lambda f: f.join(f.where(F.col("n") > 1).select("k"), "k", "left_semi"),
    "anti": lambda f: f.join(f.where(F.col("n") > 2).select("k").distinct(), "k", "left_anti"),
    "full": lambda f: f.select("k", "g", "v").join(
        f.groupBy("k").agg(F.max("n").alias("n"), F.min("t").alias("t"), F.max("d").alias("d")), "k", "full"
    ),
    "shifted": lambda f: f.withColumn("t", F.col("t") + F.make_dt_interval(hours="n")),
    "exploded": lambda f: f.select("k", "g", "v", F.explode(F.array("n", F.lit(1))).alias("n"), "t", "d"),
}
DRAWN = st.lists(
    st.tuples(
        st.none() | st.integers(-2, 4),
        st.none() | st.sampled_from(["", "a", "b", "é"]),
        st.none() | st.sampled_from([NAN, -0.0, 0.0, 1.5, float("inf"), -1e300]),
        st.none() | st.integers(-3, 9),
        st.none() | st.integers(-30, 30).map(at),
        st.none() | st.dates(dt.date(1969, 12, 30), dt.date(2015, 1, 3)),
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=DRAWN, steps=st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=5))
def test_plans_drawn_at_random_give_the_same_rows(duck, real, drawn, steps):
    def make(session):
        frame = session.createDataFrame(drawn, SCHEMA)
        for step in steps:
            frame = STEPS[step](frame)
        return frame

    assert_same(result_of(duck, make), result_of(real, make))
