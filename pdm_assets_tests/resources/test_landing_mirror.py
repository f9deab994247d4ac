"""Files that land in an object store, on a real server that speaks S3."""

import datetime as dt
import time
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from s3fs import S3FileSystem

from pdm_assets.resources.landing import LandingZone
from pdm_assets.resources.landing_mirror import LandingMirror, StoredFile
from pdm_assets.resources.landing_zone import Landing
from pdm_assets.resources.object_store import StoreError, changed_at
from pdm_assets.schemas.raw import ERRORS
from pdm_assets.settings import SettingError, Settings
from pdm_assets_tests.s3 import BUCKET, s3_server

HEADER = "datetime,machineID,errorID\n"
ROW = "2015-01-01 06:00:00,1,error1\n"


@pytest.fixture(scope="module")
def environ(tmp_path_factory):
    with s3_server(tmp_path_factory.mktemp("s3")) as environ:
        yield environ


@dataclass
class Store:
    """The bucket, and the landing zone that is its mirror."""

    client: object
    prefix: str
    root: Path

    def put(self, name: str, text: str, table: str = "errors") -> None:
        self.client.put_object(Bucket=BUCKET, Key=f"{self.prefix}/{table}/{name}", Body=text.encode())

    def delete(self, name: str) -> None:
        self.client.delete_object(Bucket=BUCKET, Key=f"{self.prefix}/errors/{name}")

    def zone(self) -> LandingZone:
        landing = self.root / "landing"
        mirror = LandingMirror(f"s3://{BUCKET}/{self.prefix}", landing)
        return LandingZone(landing, self.root / "staging", dt.date(2015, 1, 1), mirror)

    def rows(self) -> dict[str, int]:
        """Rows of each file as the landing zone has it, once the files have settled."""
        zone = self.zone()
        zone.staged(ERRORS.key)
        time.sleep(1.1)
        return {file.name: file.rows for file in zone.staged(ERRORS.key)}

    def there(self) -> set[str]:
        return {path.name for path in (self.root / "landing" / "errors").iterdir() if not path.name.startswith(".")}


@pytest.fixture
def store(environ, monkeypatch, tmp_path, request):
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    S3FileSystem.clear_instance_cache()  # they remember the server of before
    yield Store(client, f"landing-{abs(hash(request.node.name))}", tmp_path)
    client.close()


def test_what_lands_there_is_taken_with_the_objects_time(store):
    store.put("errors.csv", HEADER + ROW)
    assert store.rows() == {"errors.csv": 1}
    listed = store.client.list_objects_v2(Bucket=BUCKET, Prefix=store.prefix)["Contents"][0]
    assert (store.root / "landing" / "errors" / "errors.csv").stat().st_mtime == listed["LastModified"].timestamp()


def test_an_object_that_is_replaced_is_taken_again_and_one_that_goes_is_withdrawn(store):
    store.put("a.csv", HEADER + ROW)
    store.put("b.csv", HEADER + ROW)
    assert store.rows() == {"a.csv": 1, "b.csv": 1}
    store.put("a.csv", HEADER + ROW + ROW.replace("error1", "error2"))
    store.delete("b.csv")
    assert store.rows() == {"a.csv": 2}
    assert store.there() == {"a.csv"}


def test_nothing_is_fetched_twice(store, monkeypatch):
    store.put("a.csv", HEADER + ROW)
    store.rows()
    before = (store.root / "landing" / "errors" / "a.csv").stat().st_ino
    store.put("b.csv", HEADER + ROW)
    assert store.rows() == {"a.csv": 1, "b.csv": 1}
    assert (store.root / "landing" / "errors" / "a.csv").stat().st_ino == before


def test_names_that_can_not_be_copied_are_said_and_nothing_leaves_the_folder(store):
    for name in ("notes.txt", "more/errors.csv", "x" * 300 + ".csv", ".hidden.csv", "half.csv.part"):
        store.put(name, HEADER + ROW)
    store.put("it's 100 % ü.csv", HEADER + ROW)
    zone = store.zone()
    zone.staged(ERRORS.key)
    assert store.there() == {"it's 100 % ü.csv"}
    assert zone.passed_over(ERRORS.key) == {
        "notes.txt": "none of .csv, .csv.gz, .parquet",
        "more": "a folder: put its files beside it",
        "x" * 300 + ".csv": "its name is longer than 200 bytes",
    }
    # Staged or not: that goes by the file's age, which S3 tells in seconds.
    assert {path.name for path in store.root.iterdir()} - {"staging"} == {"landing"}
    assert {path.name for path in (store.root / "landing").iterdir()} == {"errors"}


def test_a_file_that_landed_here_stays_and_an_object_of_its_name_is_passed_over(store):
    folder = store.root / "landing" / "errors"
    folder.mkdir(parents=True)
    (folder / "released-1.csv").write_text(HEADER + ROW)
    store.put("released-1.csv", HEADER)
    store.put("a.csv", HEADER + ROW)
    zone = store.zone()
    zone.staged(ERRORS.key)
    assert store.there() == {"a.csv", "released-1.csv"}
    assert (folder / "released-1.csv").read_text() == HEADER + ROW
    assert zone.passed_over(ERRORS.key) == {"released-1.csv": "a file of that name has landed here: give the object another"}


def test_a_store_that_has_lost_all_it_had_is_not_taken_for_an_empty_one(store):
    store.put("a.csv", HEADER + ROW)
    store.rows()
    store.delete("a.csv")
    with pytest.raises(StoreError, match="has none of the 1 files that it had: see whether PDM_LANDING is right"):
        store.zone().staged(ERRORS.key)
    assert store.there() == {"a.csv"}


def test_a_bucket_that_is_not_there_and_a_store_that_is_away_are_no_empty_ones(store, monkeypatch):
    with pytest.raises(
        StoreError, match="s3://no-such-bucket/landing/errors can't be listed: The specified bucket does not exist"
    ):
        LandingMirror("s3://no-such-bucket/landing/", store.root / "landing").bring(ERRORS)
    store.put("a.csv", HEADER + ROW)
    store.rows()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    S3FileSystem.clear_instance_cache()  # another process than the one that could reach it
    with pytest.raises(StoreError, match=r"can't be listed: .*http://127\.0\.0\.1:9"):
        store.zone().staged(ERRORS.key)
    assert store.there() == {"a.csv"}


def test_listings_and_heads_of_one_object_are_one_though_stores_write_them_differently():
    # MinIO lists milliseconds and says seconds of a single object; Azure quotes tags there only.
    at = dt.datetime(2015, 1, 1, 6, 0, 0, 357_000, tzinfo=dt.UTC)
    listed = StoredFile.of({"size": 3, "LastModified": at, "ETag": "0x8D"})
    assert listed == StoredFile.of({"size": 3, "LastModified": at.replace(microsecond=0), "ETag": '"0x8D"'})
    assert listed != StoredFile.of({"size": 3, "LastModified": at, "ETag": "0x8E"})


def test_a_copy_that_was_not_written_down_is_no_strangers_file(store):
    store.put("a.csv", HEADER + ROW)
    store.rows()
    (store.root / "landing" / "errors" / ".objects.json").unlink()  # as if killed before it was written
    assert store.rows() == {"a.csv": 1}
    store.put("a.csv", HEADER + ROW + ROW.replace("error1", "error2"))
    assert store.rows() == {"a.csv": 2}
    assert store.zone().passed_over(ERRORS.key) == {}


def test_a_list_of_copies_that_a_crash_of_the_machine_left_empty_is_named_with_what_to_do(store):
    store.put("a.csv", HEADER + ROW)
    store.rows()
    listed = store.root / "landing" / "errors" / ".objects.json"
    for left in ("", "[]", '{"a.csv": 1}'):
        listed.write_text(left)
        with pytest.raises(StoreError, match=rf"{listed} can't be read: .*\. Delete it: a file that is as its object"):
            store.zone().staged(ERRORS.key)
    listed.unlink()
    assert store.rows() == {"a.csv": 1}


def test_an_object_that_can_not_be_read_does_not_keep_the_others_from_coming(store, monkeypatch):
    store.put("a.csv", HEADER + ROW)
    store.put("b.csv", HEADER + ROW)
    address = f"s3://{BUCKET}/{store.prefix}/errors"
    said = f"a.csv: can't be read in {address}: Access Denied. It is tried again until it can, or is gone"
    with monkeypatch.context() as patch:
        closed(patch, "a.csv")
        assert store.rows() == {"b.csv": 1, "a.csv": 0}
        assert store.there() == {"b.csv"}
        zone = store.zone()
        assert [file.refusal for file in zone.staged(ERRORS.key)] == [None, said]
        # that of the row, and that of the object's time, whose run says what is wrong
        assert set(zone.days_touched(ERRORS.key)) == {dt.date(2015, 1, 1), dt.datetime.now(dt.UTC).date()}
        assert [file.refusal for file in zone.look(ERRORS.key).refused] == [said]
    S3FileSystem.clear_instance_cache()
    assert store.rows() == {"a.csv": 1, "b.csv": 1}


def test_of_an_object_whose_new_version_can_not_be_read_the_earlier_one_stays(store, monkeypatch):
    store.put("a.csv", HEADER + ROW)
    assert store.rows() == {"a.csv": 1}
    store.put("a.csv", HEADER)
    closed(monkeypatch, "a.csv")
    refusals = {file.rows: file.refusal for file in store.zone().staged(ERRORS.key)}
    assert refusals[1] is None
    assert "Access Denied" in refusals[0]


def closed(patch, name):
    """An object that is listed, and may not be read."""
    get = S3FileSystem.get_file

    def denied(self, there, here, **more):
        if there.endswith(f"/{name}"):
            raise PermissionError("Access Denied")
        return get(self, there, here, **more)

    patch.setattr(S3FileSystem, "get_file", denied)
    S3FileSystem.clear_instance_cache()  # one that was made before has a method of its own


def test_a_name_that_is_taken_leaves_the_zone_quiet(store):
    folder = store.root / "landing" / "errors"
    folder.mkdir(parents=True)
    (folder / "a.csv").write_text(HEADER)
    store.put("a.csv", HEADER + ROW)
    store.put("b.csv", HEADER + ROW)
    store.rows()
    before = folder.stat().st_mtime_ns
    store.rows()
    assert folder.stat().st_mtime_ns == before


def test_the_sensor_is_told_of_a_store_that_is_away(store, monkeypatch):
    landing = Landing.of(Settings(data=store.root, landing=f"s3://no-such-bucket-of-{store.prefix}/landing"))
    with pytest.raises(StoreError, match="can't be listed: The specified bucket does not exist"):
        landing.stage_in_background()


@pytest.mark.parametrize("address", ["s3://KEY:SECRET@bucket/landing", "http://host/landing", "/landing", "s3://bucket/a?b"])
def test_an_address_that_is_none_or_holds_a_key_is_refused_and_not_shown(address):
    with pytest.raises(SettingError, match="PDM_LANDING: take an address such as s3://bucket/landing") as refused:
        Settings(landing=address)
    assert "SECRET" not in str(refused.value)


def test_an_empty_place_is_no_error(store):
    assert store.rows() == {}


@pytest.mark.parametrize(
    ("info", "at"),
    [
        ({"mtime": 1420070400.5}, dt.datetime(2015, 1, 1, 0, 0, 0, 500_000, tzinfo=dt.UTC)),
        ({"LastModified": dt.datetime(2015, 1, 1, tzinfo=dt.UTC)}, dt.datetime(2015, 1, 1, tzinfo=dt.UTC)),
        ({"mtime": None, "updated": "2015-01-01T00:00:00.000Z"}, dt.datetime(2015, 1, 1, tzinfo=dt.UTC)),
    ],
)
def test_times_of_listings_of_different_stores(info, at):
    assert changed_at(info) == at
