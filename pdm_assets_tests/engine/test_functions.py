"""Each function, operator and cast on both engines, over nulls, NaN, -0.0, infinities, edges and errors."""

import datetime as dt
import itertools
from collections.abc import Mapping

import pytest
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pdm_assets.engine.duckdb import functions
from pdm_assets_tests.engine.both import Result, assert_same, result_of

NAN, INF = float("nan"), float("inf")
DOUBLES = [None, NAN, -0.0, 0.0, INF, -INF, 1.5, -1.5, 0.1, 1e308, -1e308, 5e-324, 123456789.125, 2.0]
WHOLE = [None, 0, 1, -1, 7, -7, 3, 2**31, -(2**31), 2**53 + 1]
LONG_EDGES = [*WHOLE, 2**63 - 1, -(2**63)]
INTS = [None, 0, 1, -1, 7, -7, 2, 3]
INT_EDGES = [*INTS, 2**31 - 1, -(2**31)]
BOOLEANS = [None, True, False]
TEXTS = [None, "", "a", "B", "b", "é", "a'b", "10", "x" * 40, "\\", "漢"]


def utc(*parts):
    return dt.datetime(*parts, tzinfo=dt.UTC)


TIMES = [
    None,
    utc(1970, 1, 1),
    utc(1969, 12, 31, 23, 59, 59, 999999),
    utc(2015, 1, 1, 6),
    utc(2015, 1, 1, 6, 0, 0, 1),
    utc(2024, 2, 29, 23, 59, 59, 500000),
    utc(1900, 3, 1),
    utc(2262, 4, 11),
]
DAYS = [None, dt.date(1970, 1, 1), dt.date(1969, 12, 31), dt.date(2015, 1, 1), dt.date(2024, 2, 29), dt.date(1600, 1, 1)]
KINDS = {
    "double": (T.DoubleType(), DOUBLES),
    "long": (T.LongType(), WHOLE),
    "long edges": (T.LongType(), LONG_EDGES),
    "int": (T.IntegerType(), INTS),
    "int edges": (T.IntegerType(), INT_EDGES),
    "boolean": (T.BooleanType(), BOOLEANS),
    "string": (T.StringType(), TEXTS),
    "timestamp": (T.TimestampType(), TIMES),
    "date": (T.DateType(), DAYS),
}


def values(session, *kinds):
    """Every combination of the values of some kinds, in columns x, y, z."""
    fields = [T.StructField(name, KINDS[kind][0]) for name, kind in zip("xyz", kinds, strict=False)]
    rows = itertools.product(*(KINDS[kind][1] for kind in kinds))
    return session.createDataFrame(list(rows), T.StructType(fields))


def on(*kinds, where=None):
    """A case: an expression of x, y, z over the values of some kinds."""

    def with_expression(expression):
        def make(session):
            frame = values(session, *kinds)
            return (frame.where(where()) if where else frame).select(*"xyz"[: len(kinds)], expression().alias("found"))

        return make

    return with_expression


def x():
    return F.col("x")


def y():
    return F.col("y")


ARRAYS = T.StructType(
    [
        T.StructField("n", T.LongType()),
        T.StructField("numbers", T.ArrayType(T.LongType())),
        T.StructField("texts", T.ArrayType(T.StringType())),
        T.StructField(
            "pairs",
            T.ArrayType(T.StructType([T.StructField("at", T.TimestampType()), T.StructField("flag", T.BooleanType())])),
        ),
    ]
)
EARLY, LATE = utc(2015, 1, 1), utc(2015, 1, 2)
ARRAY_ROWS = [
    (1, [1, 2, 3], ["a", None, "c"], [(LATE, True), (EARLY, True), (EARLY, False)]),
    (2, [], [], []),
    (3, None, None, None),
    (4, [None, 5], [None], [None, (EARLY, None)]),
    (5, [None], ["x"], [(None, True), (EARLY, False)]),
    (6, [-4, 9], ["", "y"], [(EARLY, None), (EARLY, True)]),
]


def arrays(expression):
    def make(session):
        return session.createDataFrame(ARRAY_ROWS, ARRAYS).select("n", expression().alias("found"))

    return make


def not_zero():
    return F.col("y") != 0


NUMBERS = ("double", "long", "int")
PAIRS = [(a, b) for a in NUMBERS for b in NUMBERS]
SMALL = ("double", "int")
CASES: Mapping[str, object] = {
    **{f"{a} + {b}": on(a, b)(lambda: x() + y()) for a, b in PAIRS},
    **{f"{a} - {b}": on(a, b)(lambda: x() - y()) for a, b in PAIRS},
    **{f"{a} * {b}": on(a, b)(lambda: x() * y()) for a in SMALL for b in SMALL},
    **{f"{a} / {b}": on(a, b, where=not_zero)(lambda: x() / y()) for a, b in PAIRS},
    **{f"try_divide {a} {b}": on(a, b)(lambda: F.try_divide("x", "y")) for a, b in PAIRS},
    **{f"{a} % {b}": on(a, b, where=not_zero)(lambda: x() % y()) for a in ("long", "int") for b in ("long", "int")},
    **{f"pmod {a} {b}": on(a, b, where=not_zero)(lambda: F.pmod("x", "y")) for a in ("long", "int") for b in ("long", "int")},
    **{
        f"{name} {kind}": on(kind, kind)(lambda compare=compare: compare(x(), y()))
        for kind in ("double", "long edges", "int edges", "boolean", "string", "timestamp", "date")
        for name, compare in {
            "==": lambda a, b: a == b,
            "!=": lambda a, b: a != b,
            "<": lambda a, b: a < b,
            "<=": lambda a, b: a <= b,
            ">": lambda a, b: a > b,
            ">=": lambda a, b: a >= b,
            "<=>": lambda a, b: a.eqNullSafe(b),
        }.items()
    },
    "long against double": on("long", "double")(lambda: x() < y()),
    "date against timestamp": on("date", "timestamp")(lambda: x() <= y()),
    "and": on("boolean", "boolean")(lambda: x() & y()),
    "or": on("boolean", "boolean")(lambda: x() | y()),
    "not": on("boolean")(lambda: ~x()),
    "isin": on("long")(lambda: x().isin(1, 7, 99)),
    "isin with null": on("long")(lambda: x().isin(1, None)),
    "isin of texts": on("string")(lambda: x().isin("a", "é")),
    "between": on("double")(lambda: x().between(-1.5, 1.5)),
    "between times": on("timestamp")(lambda: x().between(EARLY, LATE)),
    **{f"isNull {kind}": on(kind)(lambda: x().isNull()) for kind in KINDS},
    "isNotNull": on("double")(lambda: x().isNotNull()),
    "isnan": on("double")(lambda: F.isnan("x")),
    "when": on("long")(lambda: F.when(x() > 1, "many").when(x() == 1, "one").otherwise("none")),
    "when without otherwise": on("long")(lambda: F.when(x() > 1, x())),
    "when of two types": on("int")(lambda: F.when(x() > 1, F.lit(1)).otherwise(F.lit(0.5))),
    "when of null": on("int")(lambda: F.when(x() > 1, F.lit(None)).otherwise(x())),
    "coalesce": on("int", "double")(lambda: F.coalesce("x", "y", F.lit(0))),
    **{f"greatest {kind}": on(kind, kind)(lambda: F.greatest("x", "y")) for kind in ("double", "long edges", "string", "date")},
    **{f"least {kind}": on(kind, kind)(lambda: F.least("x", "y")) for kind in ("double", "long edges", "timestamp")},
    "greatest with -0.0": on("double")(lambda: F.greatest("x", F.lit(0.0))),
    **{f"abs {kind}": on(kind)(lambda: F.abs("x")) for kind in NUMBERS},
    **{f"negative {kind}": on(kind)(lambda: -x()) for kind in NUMBERS},
    "sqrt": on("double")(lambda: F.sqrt("x")),
    "sqrt of int": on("int")(lambda: F.sqrt("x")),
    "log": on("double")(lambda: F.log("x") * 0),  # the last digit is another library's: see the tolerance test
    "ln of int": on("int")(lambda: F.log("x").isNull()),
    "exp": on("double")(lambda: F.exp("x") > 1),
    "nanvl": on("double", "double")(lambda: F.nanvl("x", "y")),
    "nanvl null": on("double")(lambda: F.nanvl("x", F.lit(None))),
    "concat": on("string", "string")(lambda: F.concat("x", F.lit("-"), "y")),
    "xxhash64 long": on("long edges")(lambda: F.xxhash64("x")),
    "xxhash64 int": on("int edges")(lambda: F.xxhash64("x")),
    "xxhash64 boolean": on("boolean")(lambda: F.xxhash64("x")),
    "xxhash64 date": on("date")(lambda: F.xxhash64("x")),
    "xxhash64 timestamp": on("timestamp")(lambda: F.xxhash64("x")),
    "xxhash64 of several": on("long", "timestamp", "int")(lambda: F.xxhash64("x", "y", "z", F.lit(20150101))),
    "struct": on("long", "string")(lambda: F.struct("x", F.col("y").alias("text"))),
    "struct field": on("long", "string")(lambda: F.struct("x", "y")["y"]),
    "struct ==": on("int", "int", "int")(lambda: F.struct("x", "y") == F.struct("x", F.col("z").alias("y"))),
    "array": on("int", "double")(lambda: F.array("x", "y")),
    "unix_micros": on("timestamp")(lambda: F.unix_micros("x")),
    "unix_millis": on("timestamp")(lambda: F.unix_millis("x")),
    "timestamp_micros": on("long")(lambda: F.timestamp_micros("x")),
    "to_date": on("timestamp")(lambda: F.to_date("x")),
    "date_add": on("date", "int")(lambda: F.date_add("x", y())),
    "timestamp + make_dt_interval": on("timestamp", "int")(lambda: x() + F.make_dt_interval(hours="y")),
    "timestamp - interval": on("timestamp")(lambda: x() - F.lit(dt.timedelta(days=2, microseconds=1))),
    "date + interval": on("date")(lambda: x() + F.lit(dt.timedelta(hours=36))),
    "make_dt_interval": on("int", "int")(lambda: F.make_dt_interval("x", "y", F.lit(3))),
    "interval + interval": on("int")(lambda: F.make_dt_interval("x") + F.lit(dt.timedelta(seconds=1))),
    "array_join": arrays(lambda: F.array_join("texts", ",")),
    "array_join with a replacement": arrays(lambda: F.array_join("texts", ",", "?")),
    "array_min": arrays(lambda: F.array_min("numbers")),
    "array_min of structs": arrays(lambda: F.array_min("pairs")),
    "size": arrays(lambda: F.size("numbers")),
    "element_at": arrays(lambda: F.when(F.size("numbers") > 1, F.element_at("numbers", 2))),
    "element_at from the end": arrays(lambda: F.when(F.size("numbers") > 0, F.element_at("numbers", -1))),
    "exists": arrays(lambda: F.exists("numbers", lambda item: item > 2)),
    "exists of a column": arrays(lambda: F.exists("numbers", lambda item: item == F.col("n"))),
    "filter": arrays(lambda: F.filter("numbers", lambda item: item > 1)),
    "filter of structs": arrays(lambda: F.filter("pairs", lambda pair: pair["at"].between(EARLY, EARLY))),
    "a rule BETWEEN": on("double")(lambda: F.expr("x BETWEEN 0.0 AND 1000.0")),
    "a rule BETWEEN of whole numbers": on("long")(lambda: F.expr("x BETWEEN 0 AND 7")),
    "a rule <>": on("long")(lambda: F.expr("x <> 7 AND x != 1")),
    "a rule IN": on("string")(lambda: F.expr("x IN ('a', 'B')")),
    "a rule of several": on("long")(lambda: F.expr("x >= 1 AND NOT (x = 7 OR x IS NULL)")),
}


@pytest.mark.parametrize("case", CASES)
def test_an_expression_is_what_spark_makes_of_it(duck, real, case):
    assert_same(result_of(duck, CASES[case]), result_of(real, CASES[case]))


TARGETS = ("string", "boolean", "int", "bigint", "double", "date", "timestamp")
PLAIN_CASTS = {
    ("double", "double"), ("double", "string"),
    ("long", "bigint"), ("long", "double"), ("long", "string"), ("long", "boolean"), ("long edges", "double"),
    ("int", "int"), ("int", "bigint"), ("int", "double"), ("int", "string"), ("int edges", "bigint"), ("int", "boolean"),
    ("boolean", "boolean"), ("boolean", "int"), ("boolean", "bigint"), ("boolean", "double"), ("boolean", "string"),
    ("string", "string"),
    ("timestamp", "timestamp"), ("timestamp", "date"), ("timestamp", "string"),
    ("date", "date"), ("date", "timestamp"), ("date", "string"),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "target"), sorted(PLAIN_CASTS))
def test_a_cast_is_sparks(duck, real, kind, target):
    make = on(kind)(lambda: x().cast(target))
    assert_same(result_of(duck, make), result_of(real, make))


@pytest.mark.parametrize(("kind", "target"), sorted({(k, t) for k in KINDS for t in TARGETS} - PLAIN_CASTS))
def test_any_other_cast_is_refused_by_name_or_fails_as_sparks_does_or_is_the_same(duck, real, kind, target):
    make = on(kind)(lambda: x().cast(target))
    found = result_of(duck, make)
    if found.error != "UnsupportedOperationException UNSUPPORTED_FEATURE.DUCKDB_ENGINE":
        assert_same(found, result_of(real, make))


TEXTS_OF = [
    1e7, 9999999.0, 1e-3, 9.99e-4, 1e21, 123456789.125, 0.1, 1 / 3, 100.0, 1e16, 123456.7, 4.9e-324, 1.7976931348623157e308,
    2.0**53, 1e22, 12345678901234567.0, 5e-5, 1234567.0, 12345678.0, 0.001, 0.00123456, 2.2250738585072014e-308,
]  # fmt: skip


def test_the_text_of_a_double_is_javas(duck, real):
    def make(session):
        rows = [(float(value),) for value in (*TEXTS_OF, *(-value for value in TEXTS_OF))]
        return session.createDataFrame(rows, "x double").select("x", x().cast("string").alias("text"))

    assert_same(result_of(duck, make), result_of(real, make))


def one(expression):
    def make(session):
        return session.createDataFrame([(1,)], "n int").select(expression().alias("found"))

    return make


def of_rows(rows, schema, expression):
    def make(session):
        return expression(session.createDataFrame(rows, schema))

    return make


MAX, MIN = 2**63 - 1, -(2**63)
ERRORS = {
    "int overflow": one(lambda: F.lit(2**31 - 1) + F.lit(1)),
    "long overflow": one(lambda: F.lit(MAX) + F.lit(1)),
    "long underflow": one(lambda: F.lit(MIN) - F.lit(1)),
    "long product": one(lambda: F.lit(2**62) * F.lit(2)),
    "abs of the least": of_rows([(MIN,)], "x long", lambda f: f.select(F.abs("x").alias("a"))),
    "minus the least": of_rows([(-(2**31),)], "x int", lambda f: f.select((-x()).alias("a"))),
    "division by zero": one(lambda: F.lit(1) / F.lit(0)),
    "division of a double": of_rows([(1.0, -0.0)], "x double, y double", lambda f: f.select((x() / y()).alias("a"))),
    "null by zero": of_rows([(None, 0.0)], "x double, y double", lambda f: f.select((x() / y()).alias("a"))),
    "remainder by zero": of_rows([(5, 0)], "x long, y long", lambda f: f.select((x() % y()).alias("a"))),
    "pmod by zero": of_rows([(5, 0)], "x long, y long", lambda f: f.select(F.pmod("x", "y").alias("a"))),
    "sum overflow": of_rows([(MAX,), (1,)], "x long", lambda f: f.agg(F.sum("x").alias("a"))),
    "long to int": of_rows([(2**31,)], "x long", lambda f: f.select(x().cast("int").alias("a"))),
    "double to int": of_rows([(2147483648.0,)], "x double", lambda f: f.select(x().cast("int").alias("a"))),
    "NaN to long": of_rows([(NAN,)], "x double", lambda f: f.select(x().cast("bigint").alias("a"))),
    "double to long": of_rows([(1e19,)], "x double", lambda f: f.select(x().cast("bigint").alias("a"))),
    "element 0": of_rows(
        [([1],)], T.StructType().add("x", T.ArrayType(T.LongType())), lambda f: f.select(F.element_at("x", 0).alias("a"))
    ),
    "an unknown column": of_rows([(1,)], "x long", lambda f: f.select("nothing")),
    "an unknown field": of_rows(
        [((1,),)], T.StructType().add("x", T.StructType().add("a", T.LongType())), lambda f: f.select("x.b")
    ),
}
# Spark says more of where it was; the kind of error is the same.
FAMILIES = {
    "long to int": "ArithmeticException CAST_OVERFLOW",
    "element 0": "SparkRuntimeException INVALID_INDEX_OF_ZERO",
}


@pytest.mark.parametrize("case", ERRORS)
def test_an_error_is_sparks(duck, real, case):
    found, expected = result_of(duck, ERRORS[case]), result_of(real, ERRORS[case])
    if expected.error is None:
        assert_same(found, expected)
        return
    assert found.error == expected.error


CUT = [1.9, -1.9, 2147483647.0, 2147483647.9, -2147483648.0, -2147483648.9, 0.0, -0.0, None]
CUT_LONG = [1.9, -1.9, 9.2e18, -9.223372036854775807e18, 9.223372036854775807e18, None]


@pytest.mark.parametrize(("values_", "target"), [(CUT, "int"), (CUT_LONG, "bigint")])
def test_a_fraction_is_cut_off(duck, real, values_, target):
    make = of_rows([(v,) for v in values_], "x double", lambda f: f.select("x", x().cast(target).alias("a")))
    assert_same(result_of(duck, make), result_of(real, make))


@pytest.mark.parametrize("function", [F.exp, F.log])
def test_transcendental_functions_differ_by_the_last_digit_at_most(duck, real, function):
    rows = [(0.001 * n**3 + 0.01,) for n in range(60)]
    make = of_rows(rows, "x double", lambda f: f.select("x", function("x").alias("a")))
    for here, there in zip(sorted(make(duck).collect()), sorted(make(real).collect()), strict=True):
        assert here["a"] == pytest.approx(there["a"], rel=4e-16)


def test_every_function_of_the_table_has_a_case(duck, monkeypatch):
    used = set()

    class Watched(dict):
        def get(self, name, default=None):
            if name in self:
                used.add(name)
            return super().get(name, default)

    monkeypatch.setattr("pdm_assets.engine.duckdb.expressions.SCALARS", Watched(functions.SCALARS))
    for make in (*CASES.values(), *ERRORS.values()):
        found = result_of(duck, make)
        assert isinstance(found, Result)
    assert functions.SCALARS.keys() - used == set()
