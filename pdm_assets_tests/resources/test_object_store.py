"""The lake on an object store: a Spark engine of its own with the jars for S3, on a real server that speaks S3."""

import datetime as dt
from pathlib import Path

import pytest
from pdm_assets.resources.engine import STORE_PACKAGES, s3_conf

from pdm_assets.resources.faults import AWAY, fault_in
from pdm_assets.resources.lake import Lake, LakeGone
from pdm_assets.resources.object_store import deltalake_options
from pdm_assets.resources.spark import SparkEngine
from pdm_assets.resources.upkeep import tidy
from pdm_assets.resources.versions import lying_there, restore
from pdm_assets.schemas.raw import TELEMETRY
from pdm_assets.settings import STORES, SettingError, Settings
from pdm_assets_tests import builders
from pdm_assets_tests.builders import day
from pdm_assets_tests.s3 import BUCKET, s3_server

FIRST = day("2015-01-01")


def test_every_scheme_of_the_settings_has_its_jars():
    assert set(STORE_PACKAGES) == {"file", *STORES}


def test_spark_and_deltalake_are_told_of_a_store_of_ones_own():
    environ = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9000", "AWS_REGION": "eu-central-1"}
    conf = s3_conf(environ)
    assert conf["spark.hadoop.fs.s3a.endpoint"] == "http://127.0.0.1:9000"
    assert conf["spark.hadoop.fs.s3a.path.style.access"] == "true"
    assert conf["spark.hadoop.fs.s3a.endpoint.region"] == "eu-central-1"
    assert deltalake_options(environ) == {"AWS_ENDPOINT_URL": "http://127.0.0.1:9000", "AWS_ALLOW_HTTP": "true"}


def test_of_amazons_own_nothing_is_said_and_plain_http_is_not_allowed():
    assert "spark.hadoop.fs.s3a.endpoint" not in s3_conf({})
    assert deltalake_options({}) == {}
    assert deltalake_options({"AWS_ENDPOINT_URL_S3": "https://minio"})["AWS_ALLOW_HTTP"] == "false"


@pytest.mark.parametrize("lake", ["s3://bucket/lake", "/data/lake", "s3a://bucket/la*ke", "s3a://", "s3a://bucket/lake/"])
def test_an_address_that_not_every_reader_takes_is_refused(lake):
    with pytest.raises(SettingError, match="PDM_LAKE"):
        Settings(lake=lake)


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch, s3_server(root) as environ:
        for name, value in environ.items():
            patch.setenv(name, value)
        settings = Settings(data=root / "data", lake=f"s3a://{BUCKET}/lake", spark_memory_mb=1024, spark_idle_minutes=1)
        engine = SparkEngine.of(settings)
        yield Lake.of(settings, engine)
        engine.close()
        engine.engine.stop()


def telemetry(lake: Lake, volt: float, *hours: str):
    return builders.telemetry(lake.spark.spark_session, [(1, f"2015-01-0{hour}", volt) for hour in hours])


@pytest.mark.slow  # an engine with other jars is another JVM
def test_days_are_written_read_counted_restored_and_tidied(lake):
    assert not lake.exists(TELEMETRY)
    end = FIRST + dt.timedelta(days=2)
    first = lake.replace_days(TELEMETRY, telemetry(lake, 170.0, "1 01:00", "1 02:00", "2 01:00"), FIRST, end, {"of": "test"})
    assert first.rows_by_day == {FIRST: 2, FIRST + dt.timedelta(days=1): 1}
    second = lake.replace_days(TELEMETRY, telemetry(lake, 180.0, "1 01:00"), FIRST, FIRST + dt.timedelta(days=1), {})
    assert second.rows_by_day == {FIRST: 1}
    assert {row["volt"] for row in lake.read(TELEMETRY, FIRST, end).collect()} == {170.0, 180.0}
    assert [row["volt"] for row in lake.preview(TELEMETRY, FIRST)] == [180.0]
    assert lake.first_and_last_day(TELEMETRY) == (FIRST, FIRST + dt.timedelta(days=1))
    assert len(lying_there(lake, TELEMETRY)) == 3

    back = restore(lake, TELEMETRY, first.version, {"reason": "test"})
    assert back.days == [FIRST]
    assert lake.rows_by_day(TELEMETRY, FIRST, end) == first.rows_by_day

    # Six more files of a day are one too many five times. VACUUM goes by its own clock: nothing is old enough yet to go.
    more = [f"2 {hour:02d}:00" for hour in range(2, 8)]
    lake.append(TELEMETRY, telemetry(lake, 190.0, *more).repartition(6), {})
    done = tidy(lake, TELEMETRY, [], dt.datetime.now(dt.UTC))
    assert done.compacted == 1
    assert done.files_after == done.files_before + 1
    assert lake.rows_by_day(TELEMETRY, FIRST, end) == {FIRST: 2, FIRST + dt.timedelta(days=1): 7}
    assert lake.delta(TELEMETRY).get_add_actions(flatten=True).num_rows == 2


@pytest.mark.slow
def test_another_address_or_one_that_lost_its_tables_is_no_new_lake(lake):
    lake.ensure(TELEMETRY)
    another = Lake.of(Settings(data=Path(lake.spark.data), lake=f"s3a://{BUCKET}/lakee"), lake.spark)
    with pytest.raises(LakeGone, match=r"are in s3a://plant/lake, and PDM_LAKE names s3a://plant/lakee"):
        another.ensure(TELEMETRY)
    another._note.write_text(another.root)
    with pytest.raises(LakeGone, match="holds nothing, and it did before"):
        another.read(TELEMETRY)
    another._note.write_text(lake.root)


@pytest.mark.slow
def test_a_store_that_is_away_is_a_fault_that_is_tried_again(lake, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(OSError, match="Generic S3 error") as away:
        Lake.of(Settings(data=lake.spark.data, lake=lake.root), lake.spark).version(TELEMETRY)
    assert fault_in(away.value) == AWAY
