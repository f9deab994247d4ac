"""The same platform with its files and tables on an object store, by two settings."""

import boto3
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from pdm_assets.resources.landed_columns import table_of
from pdm_assets.resources.object_store import deltalake_options
from pdm_assets.schemas.tables import TABLES
from pdm_assets.simulator.replay import Replayer
from pdm_assets_tests.journeys.daemon import platform
from pdm_assets_tests.journeys.history import END, HISTORY_END, SETTINGS, fleet, take_in
from pdm_assets_tests.s3 import BUCKET, s3_server

pytestmark = [pytest.mark.journey, pytest.mark.long]  # two platforms, one after the other
COMPARED = ("raw/telemetry", "raw/errors", "raw/maintenance", "features/observations", "labels/component_failures")


def rows(address: str, table: str) -> pa.Table:
    found = DeltaTable(f"{address}/{table}", storage_options=deltalake_options()).to_pyarrow_table()
    return found.sort_by([(name, "ascending") for name in TABLES[table].unique])


def test_the_same_tables_come_of_it(tmp_path, monkeypatch):
    files, whole = fleet(tmp_path / "history", HISTORY_END), fleet(tmp_path / "whole", END)
    with s3_server(tmp_path) as environ:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        client = boto3.client("s3")

        def put(folder) -> None:
            for path in sorted(folder.rglob("*.csv")):
                table = table_of(path.name)
                if table is not None:
                    client.upload_file(str(path), BUCKET, f"landing/{table.name}/{path.name}")

        day_files = Replayer(whole, tmp_path / "day", HISTORY_END)
        day_files.land_day(HISTORY_END)
        ours, theirs = tmp_path / "ours", tmp_path / "theirs"
        with platform(ours, **SETTINGS) as it:
            take_in(it, files)
            Replayer(whole, ours / "landing", HISTORY_END).land_day(HISTORY_END)
            it.wait_for("the new day", lambda: it.all_done(2))
        try:
            with platform(theirs, **SETTINGS, PDM_LANDING=f"s3://{BUCKET}/landing", PDM_LAKE=f"s3a://{BUCKET}/lake") as it:
                put(files)
                it.wait_for("the history", lambda: it.all_done(1), timeout=900)
                put(tmp_path / "day")
                it.wait_for("the new day", lambda: it.all_done(2))
            assert not (theirs / "lake").exists()
            for table in COMPARED:
                assert rows(f"s3a://{BUCKET}/lake", table).equals(rows(str(ours / "lake"), table)), table
            scores = rows(f"s3a://{BUCKET}/lake", "scores/component_risk")
            assert HISTORY_END in set(scores["date"].to_pylist())
            assert (
                scores["probability"].to_pylist()
                == rows(str(ours / "lake"), "scores/component_risk")["probability"].to_pylist()
            )
        finally:
            client.close()
