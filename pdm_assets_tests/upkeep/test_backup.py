"""A data root goes into an archive while nothing writes, and comes back whole or not at all."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import sqlite3
import stat
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from pdm_assets import cli
from pdm_assets.resources.backup import MADE_ANEW, MANIFEST
from pdm_assets.resources.hold import held
from pdm_assets.resources.staging import locked


@pytest.fixture
def root(plant):
    """A data root with what a running platform has beside the lake: a database in use, an engine, what can be made anew."""
    root = plant.landing.parent
    (root / "dagster" / "history").mkdir(parents=True)
    for name in ("staging/telemetry/x.parquet", "demo/fleet.json", "engine/engine.log", "models/.abc.part/card.json"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("made anew")
    return root


@pytest.fixture
def runs(root):
    """Dagster's database, open, with a row that is in its journal only."""
    connection = sqlite3.connect(root / "dagster" / "history" / "runs.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("CREATE TABLE runs (id TEXT)")
    connection.execute("INSERT INTO runs VALUES ('a-run')")
    assert (root / "dagster" / "history" / "runs.db-wal").stat().st_size
    yield connection
    connection.close()


def pdm(root, *arguments, **environ):
    environ = {"PDM_DATA": str(root), "PDM_FIRST_DAY": "2015-01-01", **environ}
    result = CliRunner(env=environ).invoke(cli.main, list(map(str, arguments)))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def content(root):
    """Checksum and time of all that a backup must bring back but the database, which comes as a copy."""
    kept = [path for top in ("landing", "lake", "models") for path in (root / top).rglob("*")]
    return {
        path.relative_to(root).as_posix(): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in kept
        if path.is_file() and not path.name.endswith(".lock") and ".abc.part" not in path.parts
    }


def test_what_was_destroyed_comes_back_equal_and_whole(root, runs, tmp_path):
    before = content(root)
    (tmp_path / "backups").mkdir()
    said = pdm(root, "backup", tmp_path / "backups")
    assert said.exit_code == 0, said.output
    (archive,) = (tmp_path / "backups").iterdir()
    assert said.output.startswith(f"{archive}: {len(before) + 1} files, ")
    assert archive.stat().st_mode & 0o077 == 0
    runs.close()
    shutil.rmtree(root)

    assert pdm(root, "restore-backup", archive).exit_code == 0
    assert content(root) == before
    assert sorted(path.name for path in root.iterdir()) == ["dagster", "lake", "landing", "models"]
    assert sqlite3.connect(root / "dagster" / "history" / "runs.db").execute("SELECT id FROM runs").fetchall() == [("a-run",)]
    verified = pdm(root, "lake", "verify")
    assert (verified.exit_code, verified.output) == (0, "14 tables looked at: nothing is wrong\n")
    assert not list(root.parent.glob(".*"))


@pytest.mark.parametrize("where", [{}, {"PDM_LAKE": "s3a://a-bucket/lake"}])
def test_no_backup_is_taken_while_a_run_holds_the_lake_wherever_that_is(root, tmp_path, where, monkeypatch):
    monkeypatch.setattr("pdm_assets.resources.hold.PATIENCE_S", 0.2)
    with held(root / ".lake.held.lock", "the Dagster instance 7", "(elsewhere)"):
        refused = pdm(root, "backup", tmp_path / "backup.tar.gz", **where)
    assert refused.exit_code == 1
    assert "the lake is being written by the Dagster instance 7 (elsewhere), and not by pdm-assets backup" in refused.output
    assert not list(tmp_path.glob("*backup*"))


def test_a_backup_that_waits_for_what_lands_keeps_no_run_from_the_lake(root, tmp_path, monkeypatch):
    """`quarantine release` holds the landing zone and then needs the lake: each would wait for the other."""
    from pdm_assets.resources import backup

    def look(_seconds):
        with held(root / ".lake.held.lock", "a run"):
            landing.close()

    monkeypatch.setattr(backup, "time", SimpleNamespace(monotonic=time.monotonic, time_ns=time.time_ns, sleep=look))
    with contextlib.ExitStack() as landing:
        landing.enter_context(locked(root / "landing"))
        assert "files are being landed: try again" in pdm(root, "backup", tmp_path / "backup.tar.gz").output
        assert pdm(root, "backup", tmp_path / "backup.tar.gz", "--wait", "60").exit_code == 0


def test_while_a_backup_is_taken_no_writer_comes_in(root, tmp_path, monkeypatch):
    from pdm_assets.resources import backup

    seen = []

    def look(data):
        with (data / ".lake.held.lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        seen.append(True)
        return iter(())

    monkeypatch.setattr(backup, "_files", look)
    assert pdm(root, "backup", tmp_path / "backup.tar.gz").exit_code == 0
    assert seen


def modes(root):
    folders = (root, *(path for path in root.rglob("*") if path.is_dir()))
    return {folder.relative_to(root).as_posix(): stat.S_IMODE(folder.stat().st_mode) for folder in folders}


def test_folders_have_their_modes_again_also_empty_ones(root, tmp_path):
    for name, mode in ((".", 0o750), ("landing", 0o2755), ("landing/telemetry", 0o2770), ("landing/late", 0o1777)):
        (root / name).mkdir(exist_ok=True)
        (root / name).chmod(mode)
    before = modes(root)
    assert pdm(root, "backup", tmp_path / "backup.tar.gz").exit_code == 0
    said = pdm(tmp_path / "new", "restore-backup", tmp_path / "backup.tar.gz")
    assert "set owners and groups again" in said.output
    after = modes(tmp_path / "new")
    assert after == {name: mode for name, mode in before.items() if name.split("/")[0] not in MADE_ANEW and ".abc" not in name}
    assert (after["."], after["landing/telemetry"], after["landing/late"]) == (0o750, 0o2770, 0o1777)


def test_an_archive_that_tells_of_no_folders_gives_a_root_as_any_new_folder(root, tmp_path):
    assert pdm(root, "backup", tmp_path / "new.tar.gz").exit_code == 0
    repack(tmp_path / "new.tar.gz", tmp_path / "old.tar.gz", in_the_manifest(lambda manifest: manifest.pop("folders")))
    assert pdm(tmp_path / "restored", "restore-backup", tmp_path / "old.tar.gz").exit_code == 0
    (tmp_path / "any").mkdir()
    assert (tmp_path / "restored").stat().st_mode == (tmp_path / "any").stat().st_mode
    assert content(tmp_path / "restored") == content(root)


NO_DATABASE = b"SQLite format 3\0" + b"of a plant's gateway, by chance" * 200


def test_a_landed_file_that_begins_as_a_database_is_a_file_and_a_damaged_database_is_named(root, tmp_path):
    (root / "landing" / "telemetry" / "odd.csv").write_bytes(NO_DATABASE)
    before = content(root)
    assert pdm(root, "backup", tmp_path / "backup.tar.gz").exit_code == 0
    assert pdm(tmp_path / "new", "restore-backup", tmp_path / "backup.tar.gz").exit_code == 0
    assert content(tmp_path / "new") == before

    (root / "dagster" / "history" / "runs.db").write_bytes(NO_DATABASE)
    refused = pdm(root, "backup", tmp_path / "another.tar.gz")
    assert refused.exit_code == 1
    assert f"{root}/dagster/history/runs.db is a database that can't be copied: " in refused.output
    assert "stop Dagster and put it back from an earlier backup, or move it away" in refused.output
    assert not list(tmp_path.glob("*another*"))


def test_a_backup_is_not_written_over_another_nor_into_what_it_saves(root, tmp_path):
    (tmp_path / "there.tar.gz").write_text("mine")
    assert "exists already" in pdm(root, "backup", tmp_path / "there.tar.gz").output
    assert (tmp_path / "there.tar.gz").read_text() == "mine"
    assert "is inside of" in pdm(root, "backup", root / "backup.tar.gz").output
    assert "is no folder" in pdm(tmp_path / "nowhere", "backup", tmp_path / "backup.tar.gz").output


def repack(archive, out, change):
    """An archive anew, each member and its bytes as `change` gives them; None leaves it out."""
    from io import BytesIO

    with tarfile.open(archive) as old, tarfile.open(out, "w:gz") as new:
        for member in old:
            changed = change(member, old.extractfile(member).read())
            if changed is not None:
                changed[0].size = len(changed[1])
                new.addfile(changed[0], BytesIO(changed[1]))


def in_the_manifest(edit):
    """A change of the manifest alone."""

    def change(member, content):
        if member.name == MANIFEST:
            manifest = json.loads(content)
            edit(manifest)
            content = json.dumps(manifest).encode()
        return member, content

    return change


def rot(member, content):
    return member, content[:-1] + b"?" if member.name.endswith("failures.csv") else content


def lose(member, content):
    return None if member.name.endswith("failures.csv") else (member, content)


def lose_the_manifest(member, content):
    return None if member.name == MANIFEST else (member, content)


def escape(member, content):
    if member.name.endswith("failures.csv"):
        member.name = "../outside.csv"
    return member, content


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (rot, "1 files are not as the manifest says, such as landing/failures/failures.csv"),
        (lose, "1 files are not as the manifest says, such as landing/failures/failures.csv"),
        (lose_the_manifest, "ends before its manifest"),
        (escape, "'../outside.csv', which is no file of a data root"),
        (
            in_the_manifest(lambda manifest: manifest["folders"].update({"../outside.csv": "777"})),
            "which is no folder of a data",
        ),
        (None, "can't be put back"),
    ],
)
def test_of_a_damaged_archive_nothing_is_put_back(root, tmp_path, change, said):
    whole, damaged, new = tmp_path / "whole.tar.gz", tmp_path / "damaged.tar.gz", tmp_path / "new" / "root"
    assert pdm(root, "backup", whole).exit_code == 0
    if change is None:
        damaged.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    else:
        repack(whole, damaged, change)
    refused = pdm(new, "restore-backup", damaged)
    assert refused.exit_code == 1
    assert said in refused.output
    assert not list((tmp_path / "new").iterdir())
    assert not (tmp_path / "outside.csv").exists()


def test_nothing_is_put_back_over_a_root_that_holds_something(root, tmp_path):
    archive = tmp_path / "backup.tar.gz"
    assert pdm(root, "backup", archive).exit_code == 0
    before = content(root)
    assert "is not empty" in pdm(root, "restore-backup", archive).output
    assert content(root) == before


@pytest.mark.parametrize("is_seen", [True, False])  # a bind mount of a folder of the same disk is not, but can't be removed
def test_a_data_root_that_is_a_mount_point_is_told_to_be_a_folder_below(root, tmp_path, monkeypatch, is_seen):
    def busy(path):
        raise OSError(errno.EBUSY, "Device or resource busy", str(path))

    archive, mount = tmp_path / "backup.tar.gz", tmp_path / "mount"
    assert pdm(root, "backup", archive).exit_code == 0
    mount.mkdir()
    if is_seen:
        (mount / "lost+found").mkdir()
        monkeypatch.setattr(os.path, "ismount", lambda path: path == mount)
    else:
        monkeypatch.setattr(Path, "rmdir", busy)
    refused = pdm(mount, "restore-backup", archive)
    assert refused.exit_code == 1
    assert f"{mount} is a mount point, " in refused.output
    assert f"set PDM_DATA to one below it, such as {mount}/data" in refused.output
    assert not list(tmp_path.glob(".mount*"))


def test_a_data_root_that_can_not_be_made_is_said(root, tmp_path):
    archive = tmp_path / "backup.tar.gz"
    assert pdm(root, "backup", archive).exit_code == 0
    refused = pdm("/proc/1/nodata", "restore-backup", archive)
    assert (refused.exit_code, f"{archive} can't be put back: " in refused.output) == (1, True)
    (tmp_path / "file").write_text("")
    refused = pdm(tmp_path / "file" / "root", "restore-backup", archive)
    assert (refused.exit_code, f"{archive} can't be put back: " in refused.output) == (1, True)
