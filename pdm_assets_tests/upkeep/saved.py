"""The lake that release 0.1.0 wrote, to test on: no Spark is needed to have it.

Three days of two machines from file to label, then the same days once more, and between the two a registered and promoted
model `from-0.1.0`, which names version 1 of four tables whose newest version is 2. One error row is in quarantine. Written by
`Plant` at commit 2cf63e8. Only its times were moved back, and the checksums of the logs left out for that: what is in the files
was written at the end of 2023, the versions an hour each from 2024-01-01 on, for Delta takes a version's age from its log file.
"""

import json
import tarfile
import time
from pathlib import Path

from deltalake import DeltaTable

from pdm_assets.resources.lake import FORMAT, FORMAT_PROPERTY, declared_properties
from pdm_assets.schemas.tables import TABLES
from pdm_assets_tests.plant import Plant

ARCHIVE = Path(__file__).parent / "lake-0.1.0.tar.gz"
MODEL = "from-0.1.0"


def unpack(root: Path) -> None:
    with tarfile.open(ARCHIVE) as saved:
        saved.extractall(root, filter="data")


def plant_of_0_1_0(root: Path, engine) -> Plant:
    unpack(root)
    return Plant(root, engine)


def stamp(root: Path) -> None:
    """What the upgrade does to this lake, without Spark; test_upgrade.py holds that the two are the same."""
    for log in (root / "lake").glob("*/*/_delta_log"):
        metadata = last_metadata(log)
        table = TABLES["/".join(log.parts[-3:-1])]
        metadata["configuration"] |= {**declared_properties(table, 30), FORMAT_PROPERTY: str(FORMAT)}
        commit(log.parent, {"metaData": metadata})


def last_metadata(log: Path) -> dict:
    lines = [line for each in sorted(log.glob("*.json")) for line in each.read_text().splitlines()]
    return [json.loads(line)["metaData"] for line in lines if '"metaData"' in line][-1]


def commit(table: Path, *actions: dict) -> None:
    """One more version of a table, written by hand."""
    version = DeltaTable(table).version() + 1
    info = {"commitInfo": {"timestamp": int(time.time() * 1000), "operation": "WRITE", "operationParameters": {}}}
    text = "".join(json.dumps(action) + "\n" for action in (info, *actions))
    (table / "_delta_log" / f"{version:020d}.json").write_text(text)
