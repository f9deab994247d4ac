"""What a caller or a setting says reaches no SQL, no path and no shell but as the text that it is."""

import datetime as dt

import pytest
from dagster import DagsterError
from pyspark.sql.connect.types import parse_attr_name

from pdm_assets.automation.jobs import score_range
from pdm_assets.resources.lake import Lake
from pdm_assets.resources.model_folder import ModelFolderError
from pdm_assets.schemas.raw import MACHINES, TELEMETRY
from pdm_assets.settings import SettingError, Settings
from pdm_assets_tests.builders import machines
from pdm_assets_tests.plant import Plant

SQL = "x'); DROP TABLE `a`; --"
ESCAPES = [
    "../raw/telemetry",
    "..",
    "a/../b",
    "/etc/passwd",
    "a`b",
    "a b",
    "a\nb",
    "a\n",
    "",
    "A",
    "a" * 64,
    SQL,
    "$(id)",
    "a;b",
]


@pytest.fixture
def plant(tmp_path, engine):
    plant = Plant(tmp_path, engine)
    yield plant
    assert not (tmp_path / "lake").exists()


@pytest.mark.parametrize("key", ["2015-01-01' OR 1=1 --", "../2015-01-01", "2015-01-01/..", SQL, ""])
def test_a_partition_key_is_a_day_or_nothing(plant, key):
    with pytest.raises((DagsterError, ValueError)):
        assert plant.run(key).success


@pytest.mark.parametrize("name", ESCAPES)
def test_the_results_table_is_a_plain_name(plant, name):
    days = {"start_date": "2015-01-01", "to_date": "2015-01-02"}
    result = score_range.execute_in_process(
        run_config={"ops": {"score_days": {"config": {**days, "results_table": name}}}},
        resources={name: plant.resources[name] for name in ("spark", "lake", "model_store")},
        raise_on_error=False,
    )
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    assert "take a name of lower-case letters" in str(failed.step_failure_data.error)


@pytest.mark.parametrize("name", ["../x", "a/b", "/x", ".", "..", "", "a\0b", "-x", "x" * 201, "a\n"])
def test_a_version_is_a_name_in_the_folder_of_models(plant, name):
    with pytest.raises(ModelFolderError, match="is no name for a version"):
        plant.store.folder(name)


@pytest.mark.parametrize("name", ["a.b", "a`b", "o'hara", SQL])
def test_a_catalog_and_a_schema_are_names_whatever_is_in_them(engine, name):
    lake = Lake(spark=engine, root="none", catalog=name, schema_name=name)
    quoted = f"`{name.replace('`', '``')}`"
    assert lake.sql_name(TELEMETRY) == f"{quoted}.{quoted}.`raw_telemetry`"
    assert parse_attr_name(lake.sql_name(TELEMETRY)) == [name, name, "raw_telemetry"]  # by Spark's own rules


def test_a_data_root_may_have_quotes_blanks_and_signs_of_a_shell(tmp_path, engine, spark):
    root = tmp_path / 'o\'hara "2" `id` $HOME; #1 & ~'
    lake = Lake(spark=engine, root=str(root / "lake"))
    day = dt.date(2015, 1, 1)
    assert lake.replace_days(MACHINES, machines(spark, [(1, "2015-01-01")]), day, day + dt.timedelta(days=1), {}).rows == 1
    assert lake.read(MACHINES).count() == len(lake.rows(MACHINES)) == 1
    assert [path.name for path in tmp_path.iterdir()] == [root.name]


@pytest.mark.parametrize("sign", list("%\\*?[]{},\n\t\x7f"))
def test_a_data_root_that_spark_or_delta_would_misread_is_refused(sign):
    with pytest.raises(SettingError, match="PDM_DATA"):
        Settings.from_environ({"PDM_DATA": f"/data/a{sign}b"})
