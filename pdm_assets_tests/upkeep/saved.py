"""The lake that release 0.1.0 wrote, to test on: no Spark is needed to have it.

Three days of two machines from file to label, then the same days once more, and between the two a registered and promoted
model `from-0.1.0`, which names version 1 of four tables whose newest version is 2. One error row is in quarantine. Written by
`Plant` at commit 2cf63e8; only the times of the log's files were set (an hour a version, from 2026-01-01), for Delta takes a
version's age from them.
"""

import json
import os
import tarfile
import time
from pathlib import Path

from deltalake import DeltaTable

from pdm_assets.resources.lake import FORMAT, FORMAT_PROPERTY, keeping
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
        metadata["configuration"] |= {**keeping(30), FORMAT_PROPERTY: str(FORMAT)}
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


def age(folder: Path, days: float) -> None:
    """Make all below a folder that much older, in its times and in what the Delta logs say."""
    for path in [path for path in folder.rglob("*") if path.is_file()]:
        stat = path.stat()
        if path.parent.name == "_delta_log" and path.suffix == ".json":
            actions = [json.loads(line) for line in path.read_text().splitlines()]
            for action in actions:
                for kind, name in (("add", "modificationTime"), ("remove", "deletionTimestamp"), ("commitInfo", "timestamp")):
                    if kind in action:
                        action[kind][name] -= int(days * 86_400_000)
            path.write_text("".join(json.dumps(action) + "\n" for action in actions))
        os.utime(path, (stat.st_atime, stat.st_mtime - days * 86_400))
    for checksum in folder.rglob("_delta_log/*.crc"):
        checksum.unlink()  # of the files as they were
    for checksum in folder.rglob("_delta_log/.*.crc"):
        checksum.unlink()
