"""A run of few rows opens its session for that, and a training in it does not suffer from it."""

import pytest

from pdm_assets.resources import lake as lake_module
from pdm_assets.resources.lake import _days_of_run
from pdm_assets.resources.spark import FEW_ROWS, SparkEngine
from pdm_assets_tests.plant import Plant, failure


@pytest.fixture(autouse=True)
def as_before():
    before = SparkEngine._few_rows
    yield
    SparkEngine._few_rows = before


def another(engine, number):
    """A resource with a session of its own on the same engine, with nothing but the platform's settings."""
    return SparkEngine(**{**engine.model_dump(), "idle_minutes": 100 + number, "spark_config": {}})


def test_the_session_of_a_run_of_few_rows(engine, spark):
    usual, few = another(engine, 1), another(engine, 2)
    few.expect(few_rows=False)
    defaults = {name: usual.spark_session.conf.get(name) for name in FEW_ROWS}
    few.expect(few_rows=True)
    conf = few.spark_session.conf
    try:
        assert {name: conf.get(name) for name in FEW_ROWS} == FEW_ROWS
        assert conf.get("spark.sql.shuffle.partitions") == str(few.cores)
        with few.for_many_rows():
            assert {name: conf.get(name) for name in FEW_ROWS} == defaults
            assert conf.get("spark.sql.shuffle.partitions") == usual.spark_session.conf.get("spark.sql.shuffle.partitions")
        assert {name: conf.get(name) for name in FEW_ROWS} == FEW_ROWS
        assert all(value.lower() != defaults[name].lower() for name, value in FEW_ROWS.items())
    finally:
        usual.close()
        few.close()


def test_what_was_configured_stays_and_a_session_that_was_open_is_left_as_it_was(engine, spark):
    configured = {"spark.sql.codegen.wholeStage": "false"}
    mine = SparkEngine(**{**engine.model_dump(), "idle_minutes": 103, "spark_config": configured})
    mine.expect(few_rows=True)
    was_open = {name: spark.conf.get(name) for name in FEW_ROWS}
    try:
        with mine.for_many_rows(), engine.for_many_rows():
            assert mine.spark_session.conf.get("spark.sql.codegen.wholeStage") == "false"
            assert mine.spark_session.conf.get("spark.sql.adaptive.enabled") == "true"
            assert {name: spark.conf.get(name) for name in FEW_ROWS} == was_open
        assert mine.spark_session.conf.get("spark.sql.adaptive.enabled") == "false"
        assert {name: spark.conf.get(name) for name in FEW_ROWS} == was_open
    finally:
        mine.close()


def test_a_cluster_keeps_its_own_settings(engine):
    SparkEngine(**{**engine.model_dump(), "mode": "remote"}).expect(few_rows=True)
    assert SparkEngine._few_rows is False


def test_few_rows_are_days_times_machines_of_the_last_known_fleet(tmp_path, engine, monkeypatch):
    plant = Plant(tmp_path, engine)
    plant.land_fleet(1, 2)

    def expects(first, last):
        result = plant.run(first, last, tables="machines")
        assert result.success, failure(result)
        return SparkEngine._few_rows

    assert expects("2015-01-01", "2015-01-03") is False  # no fleet is known yet
    assert expects("2015-01-01", "2015-01-03") is True
    monkeypatch.setattr(lake_module, "FEW_MACHINE_DAYS", 5)
    assert expects("2015-01-01", "2015-01-03") is False  # six machine days
    assert expects("2015-01-02", "2015-01-03") is True


@pytest.mark.parametrize(
    ("tags", "days"),
    [
        ({"dagster/partition": "2015-01-01"}, 1),
        ({"dagster/asset_partition_range_start": "2015-01-01", "dagster/asset_partition_range_end": "2015-01-31"}, 31),
        ({}, None),
    ],
)
def test_the_days_of_a_run(tags, days):
    assert _days_of_run(tags) == days


def test_a_lake_that_can_not_be_asked_is_told_by_the_asset(tmp_path, engine):
    plant = Plant(tmp_path, engine)
    plant.land_fleet(1, 2)
    assert plant.run("2015-01-01", tables="machines").success
    commit = next((tmp_path / "lake" / "raw" / "machines" / "_delta_log").glob("*1.json"))
    commit.write_text("no JSON")
    result = plant.run("2015-01-01", tables="machines")
    assert [event.step_key for event in result.all_events if event.is_step_failure] == ["land_machines"]
    assert SparkEngine._few_rows is False
