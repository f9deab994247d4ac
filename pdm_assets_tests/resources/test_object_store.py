"""The lake on an object store, by both engines, on a real server that speaks S3."""

import datetime as dt
import os
from pathlib import Path

import boto3
import pyarrow as pa
import pytest

from pdm_assets.engine.delta import DeltaRs
from pdm_assets.engine.spark import STORE_PACKAGES, s3_conf
from pdm_assets.resources.faults import AWAY, fault_in
from pdm_assets.resources.lake import WRITER_PROPERTY, Lake, LakeError, LakeGone
from pdm_assets.resources.object_store import deltalake_options
from pdm_assets.resources.spark import SparkEngine
from pdm_assets.resources.upkeep import tidy
from pdm_assets.resources.versions import lying_there, restore
from pdm_assets.schemas.raw import TELEMETRY
from pdm_assets.settings import STORES, SettingError, Settings
from pdm_assets_tests import builders
from pdm_assets_tests.builders import day
from pdm_assets_tests.s3 import BUCKET, s3_server
from pdm_assets_tests.spark_server import connect_server, engine_at

FIRST = day("2015-01-01")


def test_every_scheme_of_the_settings_has_its_jars():
    assert set(STORE_PACKAGES) == {"file", *STORES}


def test_spark_and_deltalake_are_told_of_a_store_of_ones_own():
    environ = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9000", "AWS_REGION": "eu-central-1"}
    conf = s3_conf(environ)
    assert conf["spark.hadoop.fs.s3a.endpoint"] == "http://127.0.0.1:9000"
    assert conf["spark.hadoop.fs.s3a.path.style.access"] == "true"
    assert conf["spark.hadoop.fs.s3a.endpoint.region"] == "eu-central-1"
    assert deltalake_options(environ) == {
        "aws_conditional_put": "etag",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9000",
        "AWS_ALLOW_HTTP": "true",
    }


def test_of_amazons_own_nothing_is_said_and_plain_http_is_not_allowed():
    assert "spark.hadoop.fs.s3a.endpoint" not in s3_conf({})
    assert deltalake_options({}) == {"aws_conditional_put": "etag"}
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
        settings = Settings(data=root / "data", lake=f"s3a://{BUCKET}/lake", memory_mb=512)
        engine = SparkEngine.of(settings)
        yield Lake.of(settings, engine)
        engine.close()


def telemetry(lake: Lake, volt: float, *hours: str):
    return builders.telemetry(lake.spark.spark_session, [(1, f"2015-01-0{hour}", volt) for hour in hours])


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
    for hour in range(2, 8):
        lake.append(TELEMETRY, telemetry(lake, 190.0, f"2 {hour:02d}:00"), {})
    done = tidy(lake, TELEMETRY, [], dt.datetime.now(dt.UTC))
    assert done.compacted == 1
    assert done.files_after == done.files_before + 1
    assert lake.rows_by_day(TELEMETRY, FIRST, end) == {FIRST: 2, FIRST + dt.timedelta(days=1): 7}
    assert lake.delta(TELEMETRY).get_add_actions(flatten=True).num_rows == 2


def test_another_address_or_one_that_lost_its_tables_is_no_new_lake(lake):
    lake.ensure(TELEMETRY)
    another = Lake.of(Settings(data=Path(lake.spark.data), lake=f"s3a://{BUCKET}/lakee"), lake.spark)
    with pytest.raises(LakeGone, match=r"are in s3a://plant/lake, and PDM_LAKE names s3a://plant/lakee"):
        another.ensure(TELEMETRY)
    another._note.write_text(another.root)
    with pytest.raises(LakeGone, match="holds nothing, and it did before"):
        another.read(TELEMETRY)
    another._note.write_text(lake.root)


def test_a_store_that_is_away_is_a_fault_that_is_tried_again(lake, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(OSError, match="Generic S3 error") as away:
        Lake.of(Settings(data=lake.spark.data, lake=lake.root), lake.spark).version(TELEMETRY)
    assert fault_in(away.value) == AWAY


def test_of_two_that_put_one_version_one_is_refused(lake):
    """S3's conditional put: what keeps commits of several processes apart without a lock."""
    folder = f"{BUCKET}/lake/{TELEMETRY.key}/_delta_log"
    lake.ensure(TELEMETRY)
    files, _ = lake.files(TELEMETRY)
    version = lake.version(TELEMETRY)
    options = {"Bucket": BUCKET, "Key": f"lake/{TELEMETRY.key}/_delta_log/{version:020d}.json", "IfNoneMatch": "*"}
    with pytest.raises(Exception, match=r"PreconditionFailed|412"):
        boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"]).put_object(Body=b"{}", **options)
    assert files.exists(f"{folder}/{version:020d}.json")
    stale = DeltaRs(deltalake_options)
    stale.open(lake.location(TELEMETRY))  # knows this version, and not the one that comes now
    lake.append(TELEMETRY, telemetry(lake, 1.0, "1 03:00"), {})
    rows = pa.RecordBatchReader.from_batches((batch := telemetry(lake, 2.0, "1 04:00").toArrow()).schema, batch.to_batches())
    before = lake.version(TELEMETRY)
    stale.write(lake.location(TELEMETRY), rows, mode="append", options={})
    assert lake.version(TELEMETRY) == before + 1  # it was put after the other, not over it
    assert {1.0, 2.0} <= {row["volt"] for row in lake.read(TELEMETRY).collect()}


def test_a_table_of_another_engine_is_not_written_until_it_is_taken_over(lake):
    lake.ensure(TELEMETRY)
    assert lake.properties(TELEMETRY)[WRITER_PROPERTY] == "duckdb"
    lake.set_properties(TELEMETRY, {WRITER_PROPERTY: "spark"})
    with pytest.raises(LakeError, match=r"written by the engine spark, and PDM_ENGINE=duckdb: .*`pdm-assets lake take-over`"):
        lake.append(TELEMETRY, telemetry(lake, 1.0, "1 05:00"), {})
    assert lake.read(TELEMETRY).count() > 0  # reading is free
    lake.take_over(TELEMETRY)
    lake.append(TELEMETRY, telemetry(lake, 1.0, "1 05:00"), {})


@pytest.mark.slow  # a Spark server with the jars for S3
def test_spark_continues_a_lake_on_s3_that_it_has_taken_over_and_gives_it_back(lake, tmp_path, tmp_path_factory):
    lake.ensure(TELEMETRY)
    on = FIRST + dt.timedelta(days=9)
    with (
        connect_server(tmp_path_factory.mktemp("server"), store="s3a") as server,
        engine_at(server, Path(lake.spark.data), lake.root) as engine,
    ):
        theirs = Lake.of(Settings(data=Path(lake.spark.data), lake=lake.root), engine)
        rows = builders.telemetry(engine.spark_session, [(7, "2015-01-10 05:00", 7.5)])
        with pytest.raises(LakeError, match="written by the engine duckdb, and PDM_ENGINE=spark"):
            theirs.replace_days(TELEMETRY, rows, on, on + dt.timedelta(days=1), {})
        theirs.take_over(TELEMETRY)
        assert theirs.replace_days(TELEMETRY, rows, on, on + dt.timedelta(days=1), {}).rows == 1
    with pytest.raises(LakeError, match="written by the engine spark"):
        lake.replace_days(TELEMETRY, None, on, on + dt.timedelta(days=1), {})
    lake.take_over(TELEMETRY)
    assert [row["volt"] for row in lake.read(TELEMETRY, on, on + dt.timedelta(days=1)).collect()] == [7.5]
    assert lake.replace_days(TELEMETRY, None, on, on + dt.timedelta(days=1), {}).rows == 0
