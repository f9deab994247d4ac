"""A lake of release 0.1.0: what it is told, what the upgrade does, and what was lost without it."""

import dataclasses

import pytest
from pyspark.sql import types as T

from pdm_assets.resources import upgrade
from pdm_assets.resources.lake import FORMAT, FORMAT_PROPERTY, LakeError, declared_properties
from pdm_assets.schemas.features import OBSERVATIONS
from pdm_assets.schemas.raw import ERRORS, FAILURES
from pdm_assets.schemas.table import column
from pdm_assets.schemas.tables import TABLES
from pdm_assets_tests import builders
from pdm_assets_tests.builders import day
from pdm_assets_tests.upkeep.saved import plant_of_0_1_0


@pytest.fixture(scope="module")
def old(tmp_path_factory, engine, spark):
    return plant_of_0_1_0(tmp_path_factory.mktemp("old"), engine)


@pytest.fixture(scope="module")
def upgraded(tmp_path_factory, engine, spark):
    """Another copy, and the steps that its upgrade took."""
    plant = plant_of_0_1_0(tmp_path_factory.mktemp("upgraded"), engine)
    return plant, [(table.key, step.format) for table, step in upgrade.upgrade(plant.lake)]


def test_a_lake_of_the_release_before_is_told_what_to_do_and_written_no_more(old, spark):
    rows = builders.errors(spark, [(1, "2015-01-02 05:00", "error1")])
    told = rf"earlier release \(format 1, this release writes {FORMAT}\): .* `pdm-assets lake upgrade`"
    with pytest.raises(LakeError, match=told):
        old.lake.replace_days(ERRORS, rows, day("2015-01-02"), day("2015-01-03"), {})
    assert old.lake.version(ERRORS) == 2


def test_every_table_is_upgraded_once_and_its_rows_are_what_they_were(upgraded, old):
    plant, steps = upgraded
    stored = [table for table in TABLES.values() if old.lake.exists(table)]
    assert steps == [(table.key, step) for table in stored for step in range(2, FORMAT + 1)]
    for table in stored:
        assert plant.lake.format_of(table) == FORMAT
        assert declared_properties(table, 30).items() <= plant.lake.properties(table).items()
        assert upgrade.differences(plant.lake, table) == []
        assert plant.lake.arrow(table, None, None).to_table() == old.lake.arrow(table, None, None).to_table()
        plant.lake.ensure(table)  # refuses no writer any more
    assert list(upgrade.upgrade(plant.lake)) == []


def test_a_later_release_adds_a_column_and_a_rule_and_an_old_release_is_told(plant, spark, monkeypatch):
    later = dataclasses.replace(
        FAILURES,
        columns=(*FAILURES.columns, column("note", T.StringType(), "the crew's", nullable=True)),
        constraints={**FAILURES.constraints, "machine_is_positive": "machine_id > 0"},
    )
    assert upgrade.differences(plant.lake, later) == [
        "column note is missing",
        "the constraint machine_is_positive is missing, not machine_id > 0",
    ]
    step = upgrade.Migration(FORMAT + 1, "the crew's notes", upgrade.add_what_is_declared)
    monkeypatch.setattr(upgrade, "MIGRATIONS", (*upgrade.MIGRATIONS, step))
    monkeypatch.setattr(type(plant.lake), "tables", lambda self: [later])
    assert [step.what for _, step in upgrade.upgrade(plant.lake)] == ["the crew's notes"]
    assert upgrade.differences(plant.lake, later) == []
    assert {row["note"] for row in plant.lake.rows(later)} == {None}
    with pytest.raises(LakeError, match=rf"later release \(format {FORMAT + 1}, this release knows {FORMAT}\)"):
        plant.lake.replace_days(FAILURES, builders.failures(spark), day("2015-01-03"), day("2015-01-04"), {})
    monkeypatch.undo()
    monkeypatch.setattr(type(plant.lake), "tables", lambda self: [FAILURES])
    with pytest.raises(LakeError, match="later release"):
        list(upgrade.upgrade(plant.lake))


def test_what_can_not_be_added_is_said(plant):
    must = dataclasses.replace(ERRORS, columns=(*ERRORS.columns, column("by", T.StringType(), "who")))
    with pytest.raises(LakeError, match="raw/errors lacks by, which may not be null"):
        upgrade.add_what_is_declared(plant.lake, must)
    broken = dataclasses.replace(ERRORS, constraints={**ERRORS.constraints, "machine_is_large": "machine_id > 9"})
    with pytest.raises(LakeError, match="raw/errors can't have the rule machine_is_large, machine_id > 9"):
        upgrade.add_what_is_declared(plant.lake, broken)


def test_the_format_that_is_written_is_the_one_that_the_last_step_leads_to(upgraded):
    plant, _ = upgraded
    assert upgrade.MIGRATIONS[-1].format == FORMAT
    assert [step.format for step in upgrade.MIGRATIONS] == list(range(2, FORMAT + 1))
    assert plant.lake.properties(OBSERVATIONS)[FORMAT_PROPERTY] == str(FORMAT)
