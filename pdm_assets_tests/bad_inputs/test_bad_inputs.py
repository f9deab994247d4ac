"""Every input of the corpus, landed at once: each file becomes what it must, whatever lies beside it."""

import datetime as dt
import os
import time

import pytest

from pdm_assets.assets.raw import BALANCE, TAKEN
from pdm_assets.resources.landed_columns import shown
from pdm_assets.schemas.tables import TABLES
from pdm_assets_tests.bad_inputs.corpus import CASES, DAY, FIRST_MACHINE
from pdm_assets_tests.builders import day
from pdm_assets_tests.plant import Plant, check

FIRST, LAST = "2015-03-27", "2015-03-31"
LANDED = "machines telemetry errors maintenance failures"
TIMES = {"telemetry": "observed_at", "errors": "occurred_at", "maintenance": "performed_at", "failures": "failed_at"}
MACHINES = {case.id: FIRST_MACHINE + n for n, case in enumerate(CASES)}


@pytest.fixture(scope="module")
def plant(tmp_path_factory, engine, spark):
    plant = Plant(tmp_path_factory.mktemp("plant"), engine, first_day=FIRST)
    plant.land_fleet(*(machine for case, machine in zip(CASES, MACHINES.values(), strict=True) if case.table != "machines"))
    for case in CASES:
        folder = plant.landing / case.table
        folder.mkdir(exist_ok=True)
        path = case.write(folder, MACHINES[case.id])
        os.utime(path, (time.time() - 100,) * 2, follow_symlinks=False)
    return plant


@pytest.fixture(scope="module")
def run(plant):
    """All of it as one run over five days."""
    result = plant.run(FIRST, LAST, tables=LANDED)
    assert result.success
    return result


@pytest.fixture(scope="module")
def found(plant, run):
    """By table, the rows of the raw table and of the quarantine."""
    tables = {name: (TABLES[f"raw/{name}"], TABLES[f"quarantine/{name}"]) for name in LANDED.split()}
    start, end = day(FIRST), day(LAST) + dt.timedelta(days=1)
    return {name: tuple(plant.lake.rows(table, start, end) for table in both) for name, both in tables.items()}


def test_the_corpus_is_what_it_says():
    assert len(CASES) >= 80
    assert len({case.id for case in CASES}) == len({(case.table, case.file) for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id.replace(" ", "-"))
def test_a_file_becomes_what_it_must(plant, run, found, case):
    raw, quarantine = found[case.table]
    path = plant.landing / case.table / case.file
    mine = [row for row in raw if row["machine_id"] == MACHINES[case.id]]
    rejected = [row for row in quarantine if row["file"] == shown(path)]
    if case.table == "machines":
        mine, rejected = ([row for row in rows if row["date"] == day(DAY)] for rows in (mine, rejected))
        assert [row["machine_model"] for row in mine] == list(case.raw)
    else:
        times = sorted(row[TIMES[case.table]] for row in mine)
        assert times == sorted(dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC) for text in case.raw)
        assert all(row["date"] == row[TIMES[case.table]].date() for row in mine)
    assert {row["line"] for row in rejected} == set(case.quarantined)
    for row in rejected:
        assert case.quarantined[row["line"]] in row["reason"]
        assert row["text"]
    taken = check(run, f"raw/{case.table}", TAKEN)
    said = (taken.description or "").split("; ")
    named = [each for each in said if each.lstrip("`").startswith(f"{shown(path)}: ")]
    assert len(named) == (case.named is not None)
    if case.named:
        assert case.named in named[0]


@pytest.mark.parametrize("table", LANDED.split())
def test_every_row_is_accounted_for(run, table):
    balance = check(run, f"raw/{table}", BALANCE)
    assert balance.passed, balance.description
    counts = {name: value.value for name, value in balance.metadata.items()}
    days = 5 if table == "machines" else 1
    its = [case for case in CASES if case.table == table]
    assert counts["quarantined_rows"] == days * sum(len(case.quarantined) for case in its)
    assert counts["exact_duplicates"] == days * sum(case.duplicates for case in its)
    assert counts["superseded_rows"] == days * sum(case.superseded for case in its)


def test_nothing_was_read_through_a_link(plant, found):
    raw, _ = found["telemetry"]
    assert MACHINES["a link"] not in {row["machine_id"] for row in raw}


@pytest.mark.slow
def test_taken_in_once_more_every_table_is_the_same(plant, run):
    keys = [key for name in LANDED.split() for key in (f"raw/{name}", f"quarantine/{name}")]
    rows = {key: sorted(map(str, plant.lake.rows(TABLES[key]))) for key in keys}
    assert plant.run(FIRST, LAST, tables=LANDED).success
    assert {key: sorted(map(str, plant.lake.rows(TABLES[key]))) for key in keys} == rows
