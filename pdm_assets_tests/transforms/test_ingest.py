"""The verdict on every landed row, by hand and against a plain Python oracle."""

import datetime as dt
from collections import Counter, defaultdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import types as T

from pdm_assets.schemas.raw import ERRORS, MACHINES, MAINTENANCE, TELEMETRY, quarantine_of
from pdm_assets.transforms.ingest import CONFLICT, VERDICTS, quarantined_rows, raw_rows, sort_landed_rows
from pdm_assets_tests.builders import day, utc

NOON = utc("2015-01-01 12:00")


def landed(spark, table, rows):
    """(file rank, line, problem, values...) of 2015-01-01; the file's name is f and its rank."""
    optional = [T.StructField(f.name, f.dataType) for f in table.columns]
    names = ("file", "problem", "text")
    schema = T.StructType(
        [
            *optional,
            *(T.StructField(name, T.StringType()) for name in names),
            T.StructField("line", T.LongType()),
            T.StructField("landed_rank", T.IntegerType()),
            T.StructField("date", T.DateType()),
        ]
    )
    complete = [
        (*values, f"f{rank}", problem, f"text of {line}" if problem else None, line, rank, day("2015-01-01"))
        for rank, line, problem, *values in rows
    ]
    return spark.createDataFrame(complete, schema)


def verdicts(spark, rows, table=TELEMETRY, known=None):
    """(rank, line) -> (verdict, reason)."""
    known_machines = known and spark.createDataFrame([(day(on), m) for m, on in known], "date date, machine_id bigint")
    found = sort_landed_rows(landed(spark, table, rows), table, known_machines).collect()
    return {(row["landed_rank"], row["line"]): (row["verdict"], row["reason"]) for row in found}


def reading(rank, line, volt, *, machine=1, at=NOON, problem=None):
    return (rank, line, problem, machine, at, volt, 450.0, 100.0, 40.0)


def test_a_good_row_is_raw(spark):
    assert verdicts(spark, [reading(0, 2, 170.0)]) == {(0, 2): ("raw", None)}


def test_a_row_with_a_problem_is_quarantined_with_it(spark):
    rows = [
        (0, 2, "6 fields", None, None, None, None, None, None),
        (0, 3, "7 fields", None, None, None, None, None, None),
    ]
    assert verdicts(spark, rows) == {(0, 2): ("quarantined", "6 fields"), (0, 3): ("quarantined", "7 fields")}


@pytest.mark.parametrize(
    ("volt", "reason"),
    [
        (0.0, None),
        (1000.0, None),
        (-0.5, "volt is -0.5, valid: volt BETWEEN 0.0 AND 1000.0"),
        (1000.5, "volt is 1000.5, valid: volt BETWEEN 0.0 AND 1000.0"),
        (float("nan"), "volt is NaN, valid: volt BETWEEN 0.0 AND 1000.0"),
        (None, "volt is missing"),
    ],
)
def test_a_reading_outside_of_its_range_is_quarantined_and_the_bounds_are_inside(spark, volt, reason):
    assert verdicts(spark, [reading(0, 2, volt)])[0, 2] == ("quarantined" if reason else "raw", reason)


@pytest.mark.parametrize(
    ("table", "values", "reason"),
    [
        (
            ERRORS,
            (1, NOON, "error9"),
            "error_code is error9, valid: error_code IN ('error1', 'error2', 'error3', 'error4', 'error5')",
        ),
        (
            MAINTENANCE,
            (1, NOON, "comp5"),
            "component is comp5, valid: component IN ('comp1', 'comp2', 'comp3', 'comp4')",
        ),
        (MACHINES, (1, "model3", 201), "age_years is 201, valid: age_years BETWEEN 0 AND 200"),
    ],
)
def test_an_unknown_value_is_quarantined_with_the_valid_ones(spark, table, values, reason):
    assert verdicts(spark, [(0, 2, None, *values)], table)[0, 2] == ("quarantined", reason)


def test_a_machine_must_be_in_the_fleet_of_that_day(spark):
    rows = [
        reading(0, 2, 1.0, machine=1),
        reading(0, 3, 1.0, machine=2),
        reading(0, 4, None, machine=None, problem="p"),
    ]
    assert verdicts(spark, rows, known=[(1, "2015-01-01"), (2, "2015-01-02")]) == {
        (0, 2): ("raw", None),
        (0, 3): ("quarantined", "machine 2 is not in the fleet that day"),
        (0, 4): ("quarantined", "p"),
    }


def only_verdicts(spark, rows, table=TELEMETRY):
    return {place: verdict for place, (verdict, _) in verdicts(spark, rows, table).items()}


def test_equal_rows_collapse_within_a_file_and_across_files(spark):
    rows = [reading(0, 2, 1.0), reading(0, 3, 1.0), reading(1, 2, 1.0)]
    assert only_verdicts(spark, rows) == {(0, 2): "duplicate", (0, 3): "duplicate", (1, 2): "raw"}


def test_of_two_files_that_disagree_the_one_landed_last_wins(spark):
    rows = [reading(0, 2, 3.0), reading(1, 2, 1.0), reading(2, 9, 2.0), reading(2, 2, 5.0, machine=2)]
    assert only_verdicts(spark, rows) == {
        (0, 2): "superseded",
        (1, 2): "superseded",
        (2, 9): "raw",
        (2, 2): "raw",
    }


def test_a_value_that_comes_back_makes_its_first_copy_a_duplicate(spark):
    rows = [reading(0, 2, 1.0), reading(1, 2, 2.0), reading(2, 2, 1.0)]
    assert only_verdicts(spark, rows) == {(0, 2): "duplicate", (1, 2): "superseded", (2, 2): "raw"}


def test_a_file_that_contradicts_itself_loses_all_its_rows_of_the_key(spark):
    rows = [
        reading(0, 2, 1.0),
        reading(1, 2, 1.0),
        reading(1, 3, 2.0),
        reading(1, 4, 1.0),
        reading(1, 5, 1.0, machine=2),
    ]
    assert verdicts(spark, rows) == {
        (0, 2): ("raw", None),
        (1, 2): ("quarantined", CONFLICT),
        (1, 3): ("quarantined", CONFLICT),
        (1, 4): ("quarantined", CONFLICT),
        (1, 5): ("raw", None),
    }


def test_a_quarantined_row_has_no_say_over_the_others(spark):
    rows = [reading(0, 2, 1.0), reading(1, 2, 5000.0), reading(1, 3, 2.0), reading(2, 2, -1.0)]
    assert only_verdicts(spark, rows) == {
        (0, 2): "superseded",
        (1, 2): "quarantined",
        (1, 3): "raw",
        (2, 2): "quarantined",
    }


def test_events_whose_columns_are_all_key_can_only_be_duplicates(spark):
    rows = [(0, 2, None, 1, NOON, "error1"), (0, 3, None, 1, NOON, "error2"), (1, 2, None, 1, NOON, "error1")]
    assert only_verdicts(spark, rows, ERRORS) == {(0, 2): "duplicate", (0, 3): "raw", (1, 2): "raw"}


def oracle(rows):
    """The rules of sort_landed_rows, one key at a time."""
    by_key = defaultdict(list)
    found = {}
    for rank, line, problem, machine, at, volt, *_ in rows:
        if problem or volt is None or not 0 <= volt <= 1000:
            found[rank, line] = "quarantined"
        else:
            by_key[machine, at].append((rank, line, volt))
    for key_rows in by_key.values():
        values = defaultdict(set)
        for rank, _, volt in key_rows:
            values[rank].add(volt)
        left = [row for row in key_rows if len(values[row[0]]) == 1]
        found |= {(rank, line): "quarantined" for rank, line, _ in key_rows if len(values[rank]) > 1}
        if left:
            *last, best = max(left)
            for rank, line, volt in left:
                found[rank, line] = "raw" if [rank, line] == last else "duplicate" if volt == best else "superseded"
    return found


any_reading = st.tuples(
    st.integers(0, 3),
    st.sampled_from([1, 2]),
    st.sampled_from([1.0, 2.0, 0.0, -0.0, None, -5.0]),
    st.sampled_from([None] * 5 + ["problem"]),
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(any_reading, max_size=8), min_size=20, max_size=20))
def test_every_row_has_the_verdict_of_the_rules_and_a_key_at_most_one_raw_row(spark, fleets):
    """Many small cases in one frame: machines of case n are 2n and 2n + 1."""
    rows = [
        reading(rank, 100 * case + line, volt, machine=2 * case + machine, problem=problem)
        for case, each in enumerate(fleets)
        for line, (rank, machine, volt, problem) in enumerate(each)
    ]
    found = only_verdicts(spark, rows)
    assert found == oracle(rows)
    assert set(found.values()) <= set(VERDICTS)
    raw_keys = Counter(machine for rank, line, _, machine, *_ in rows if found[rank, line] == "raw")
    assert set(raw_keys.values()) <= {1}


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(any_reading, min_size=10, max_size=40))
def test_where_no_key_repeats_the_short_way_has_the_same_verdicts(spark, readings):
    rows = [
        reading(rank, n, volt, machine=n % 4, at=NOON + dt.timedelta(hours=n), problem=problem)
        for n, (rank, _, volt, problem) in enumerate(readings)
    ]
    frame = landed(spark, TELEMETRY, rows)
    known = spark.createDataFrame([(day("2015-01-01"), m) for m in (0, 1, 2)], "date date, machine_id bigint")
    columns = ("landed_rank", "line", "verdict", "reason", "text", *TELEMETRY.column_names)
    short, some, long = (
        sorted(map(tuple, sort_landed_rows(frame, TELEMETRY, known, repeating=days).select(*columns).collect()), key=repr)
        for days in ([], [day("2015-01-01")], None)
    )
    assert short == some == long


def test_only_on_days_that_are_named_are_rows_of_a_key_brought_together(spark):
    rows = [
        reading(rank, line, 170.5, at=NOON + dt.timedelta(days=days)) for days, rank, line in ((0, 0, 2), (0, 1, 2), (1, 1, 3))
    ]
    frame = landed(spark, TELEMETRY, rows)

    def verdicts(*repeating):
        told = sort_landed_rows(frame, TELEMETRY, repeating=[day(each) for each in repeating])
        return sorted(tuple(row) for row in told.select("landed_rank", "line", "verdict").collect())

    assert verdicts("2015-01-01") == [(0, 2, "duplicate"), (1, 2, "raw"), (1, 3, "raw")]
    assert verdicts("2015-01-02") == [(0, 2, "raw"), (1, 2, "raw"), (1, 3, "raw")]  # it takes the caller's word


def test_raw_rows_are_the_table_and_quarantined_rows_say_where_and_why(spark):
    rows = [
        reading(0, 2, 170.5),
        reading(0, 3, 5000.0),
        reading(0, 4, None, problem="volt 'x' is not a number"),
    ]
    found = sort_landed_rows(landed(spark, TELEMETRY, rows), TELEMETRY)
    (raw,) = raw_rows(found, TELEMETRY).collect()
    assert tuple(raw.asDict()) == TELEMETRY.column_names
    assert (raw["machine_id"], raw["volt"], raw["date"]) == (1, 170.5, day("2015-01-01"))
    frame = quarantined_rows(found)
    assert tuple(frame.columns) == quarantine_of(TELEMETRY).column_names
    assert sorted(tuple(row) for row in frame.collect()) == [
        (
            "f0",
            3,
            "volt is 5000.0, valid: volt BETWEEN 0.0 AND 1000.0",
            "2015-01-01 12:00:00,1,5000.0,450.0,100.0,40.0",
            day("2015-01-01"),
        ),
        ("f0", 4, "volt 'x' is not a number", "text of 4", day("2015-01-01")),
    ]
