"""Files in, rows by day out: what lands, in which order, on which days."""

import datetime as dt
import os
import shutil
import time
from pathlib import Path

import pytest

from pdm_assets.resources.landed_columns import columns_of
from pdm_assets.resources.landed_rows import read_landed
from pdm_assets.resources.landing import LandingError, LandingGone, LandingZone, land
from pdm_assets.resources.landing_zone import Landing
from pdm_assets.schemas.raw import MACHINES
from pdm_assets.schemas.raw import TELEMETRY as TELEMETRY_TABLE
from pdm_assets.simulator.replay import Replayer
from pdm_assets.simulator.writer import simulate
from pdm_assets_tests.builders import day, utc

FIRST_DAY = day("2015-01-01")
TELEMETRY = "datetime,machineID,volt,rotate,pressure,vibration"
MAINTENANCE = "datetime,machineID,comp"
FLEET = "machineID,model,age"


def telemetry(*times: str, machine: int = 1, volt: float = 1.0) -> str:
    return "\n".join([TELEMETRY, *(f"{time}:00,{machine},{volt},1,1,1" for time in times)])


@pytest.fixture
def zone(tmp_path: Path) -> LandingZone:
    return LandingZone(tmp_path / "landing", tmp_path / "staging", FIRST_DAY)


def put(zone: LandingZone, name: str, content: str, *, minute: int = 0) -> Path:
    """A file in the landing zone, last changed at a minute of 2020."""
    path = zone.landing_root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    changed = utc("2020-01-01 00:00").timestamp() + 60 * minute
    os.utime(path, (changed, changed))
    return path


def scanned(zone, spark, table, start, end, *names):
    rows = zone.scan(spark, table, day(start), day(end)).collect()
    return sorted(tuple(row[name] for name in names) for row in rows)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "PdM_telemetry.csv").write_text(telemetry("2015-01-01 06:00"))
    (folder / "machines-2015-06-01.csv").write_text(f"{FLEET}\n1,model3,18")
    (folder / "README.txt").write_text("none of ours")
    return folder


def test_landing_puts_each_file_in_the_folder_of_its_table_with_the_present_time(source, tmp_path):
    os.utime(source / "PdM_telemetry.csv", (0, 0))
    root = tmp_path / "landing"
    landed = land(source, root)
    assert [path.relative_to(root).as_posix() for path in landed] == [
        "telemetry/PdM_telemetry.csv",
        "machines/machines-2015-06-01.csv",
    ]
    assert landed[0].read_bytes() == (source / "PdM_telemetry.csv").read_bytes()
    assert landed[0].stat().st_mtime > 0
    assert not list(root.rglob("*.landing"))


def test_the_same_bytes_are_landed_once_and_other_bytes_beside_them(source, tmp_path):
    root = tmp_path / "landing"
    land(source, root)
    assert land(source, root) == []
    (source / "PdM_telemetry.csv").write_text(telemetry("2015-01-02 06:00"))
    (source / "machines-2015-06-01.csv").write_text(f"{FLEET}\n2,model3,18")
    assert [path.name for path in land(source, root)] == ["PdM_telemetry-2.csv", "machines-2015-06-01-2.csv"]
    assert land(source, root) == []
    assert len(list((root / "telemetry").glob("*.csv"))) == 2


def test_what_lands_is_on_the_disk_before_it_is_seen(source, tmp_path, monkeypatch):
    synced, fsync, replace = [], os.fsync, os.replace

    def note(opened):
        synced.append(Path(os.readlink(f"/proc/self/fd/{opened}")))
        fsync(opened)

    def renamed(copy, final):
        assert copy == synced[-1]
        replace(copy, final)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "replace", renamed)
    for path in land(source, tmp_path / "landing"):
        assert path.parent in synced


def test_one_refused_file_keeps_all_of_the_folder_out(source, tmp_path):
    (source / "errors.csv").write_text("when,who\n")
    with pytest.raises(
        LandingError,
        match=r"errors.csv: its columns .* Found: when, who. Expected, .*: datetime, machineID, errorID",
    ):
        land(source, tmp_path / "landing")
    assert not (tmp_path / "landing").exists()


def test_links_and_folders_are_refused(source, tmp_path):
    (source / "errors.csv").symlink_to(source / "README.txt")
    with pytest.raises(LandingError, match=r"errors.csv: a link or folder"):
        land(source, tmp_path / "landing")
    (source / "errors.csv").unlink()
    (source / "errors.csv").mkdir()
    with pytest.raises(LandingError, match=r"errors.csv: a link or folder"):
        land(source, tmp_path / "landing")


def test_a_folder_with_nothing_to_land_says_which_names_are_usual(tmp_path):
    with pytest.raises(LandingError, match="no such folder"):
        land(tmp_path / "none", tmp_path / "landing")
    (tmp_path / "none").mkdir()
    with pytest.raises(LandingError, match=r"telemetry.csv, errors.csv, maint.csv, failures.csv, machines.csv"):
        land(tmp_path / "none", tmp_path / "landing")


def test_unfinished_and_foreign_files_are_passed_over(zone):
    put(zone, "telemetry/a.csv", telemetry("2015-01-01 06:00"))
    for name in (
        ".a.csv",
        "_a.csv",
        "a.csv.tmp",
        "a.csv.part",
        "a.csv.crdownload",
        "a.csv.filepart",
        "a.txt",
        "sub/a.csv",
    ):
        put(zone, f"telemetry/{name}", telemetry("2015-01-01 06:00"))
    (zone.landing_root / "telemetry" / "link.csv").symlink_to(zone.landing_root / "telemetry" / "a.csv")
    assert [file.path.name for file in zone.files("raw/telemetry")] == ["a.csv"]


def test_a_file_that_changed_within_the_last_second_is_left_for_later(zone):
    path = put(zone, "telemetry/a.csv", telemetry("2015-01-01 06:00"))
    os.utime(path)
    assert zone.files("raw/telemetry") == []
    assert zone.staged("raw/telemetry") == []


def test_a_table_that_nothing_landed_for_is_empty(zone, spark):
    assert zone.landed_rows("raw/errors", FIRST_DAY, day("2016-01-01")) == {}
    frame = zone.scan(spark, "raw/errors", FIRST_DAY, day("2016-01-01"))
    assert frame.collect() == []
    names = {
        "machine_id",
        "occurred_at",
        "error_code",
        "date",
        "file",
        "line",
        "problem",
        "text",
        "landed_rank",
    }
    assert set(frame.columns) == names
    put(zone, "errors/a.csv", "datetime,machineID,errorID\n2015-01-01,1,error1")
    assert set(zone.scan(spark, "raw/errors", FIRST_DAY, day("2016-01-01")).columns) == names


def test_a_scan_gives_the_rows_of_its_days_with_file_line_and_rank(zone, spark):
    put(
        zone,
        "telemetry/b.csv",
        telemetry("2015-01-01 23:59", "2015-01-02 00:00", "2015-01-03 00:00"),
        minute=1,
    )
    put(zone, "telemetry/a.csv", telemetry("2015-01-02 23:59") + "\nsoon,1,1,1,1,1", minute=2)
    rows = scanned(
        zone,
        spark,
        "raw/telemetry",
        "2015-01-02",
        "2015-01-03",
        "file",
        "line",
        "landed_rank",
        "date",
        "problem",
        "text",
    )
    assert rows == [
        ("a.csv", 2, 1, day("2015-01-02"), None, None),
        ("a.csv", 3, 1, day("2015-01-02"), "observed_at 'soon' is not a time", "soon,1,1,1,1,1"),
        ("b.csv", 3, 0, day("2015-01-02"), None, None),
    ]
    assert zone.landed_rows("raw/telemetry", day("2015-01-01"), day("2015-01-03")) == {
        day("2015-01-01"): 1,
        day("2015-01-02"): 3,
    }


def test_a_day_of_a_bulk_file_reads_only_the_part_that_holds_it(zone, spark):
    start = utc("2015-01-01 06:00")
    put(
        zone,
        "telemetry/bulk.csv",
        telemetry(*(f"{start + dt.timedelta(days=n):%Y-%m-%d %H:%M}" for n in range(90))),
    )
    frame = zone.scan(spark, "raw/telemetry", day("2015-02-10"), day("2015-02-11"))
    assert frame._explain_string().count(".parquet'") == 1
    assert len(zone.staged("raw/telemetry")[0].parts) == 12
    assert [row["observed_at"].isoformat() for row in frame.collect()] == ["2015-02-10T06:00:00"]


def test_one_look_counts_and_scans_the_same_rows_though_a_file_lands_or_goes_meanwhile(zone, spark):
    path = put(zone, "telemetry/a.csv", telemetry("2015-01-01 06:00"))
    look = zone.look("raw/telemetry")
    put(zone, "telemetry/b.csv", telemetry("2015-01-01 07:00"))
    path.unlink()
    assert zone.landed_rows("raw/telemetry", FIRST_DAY, day("2015-01-02")) == {FIRST_DAY: 1}
    assert look.rows(FIRST_DAY, day("2015-01-02")) == {FIRST_DAY: 1}
    assert [row["file"] for row in look.scan(spark, FIRST_DAY, day("2015-01-02")).collect()] == ["a.csv"]


def test_history_of_maintenance_belongs_to_the_first_partition(zone, spark):
    put(
        zone,
        "maintenance/m.csv",
        f"{MAINTENANCE}\n2014-06-01 06:00:00,1,comp1\n2015-01-01 06:00:00,1,comp2\n2015-01-02,1,comp2",
    )
    rows = scanned(zone, spark, "raw/maintenance", "2015-01-01", "2015-01-02", "date", "component", "problem")
    assert rows == [(FIRST_DAY, "comp1", None), (FIRST_DAY, "comp2", None)]
    assert zone.landed_rows("raw/maintenance", FIRST_DAY, day("2015-01-02")) == {FIRST_DAY: 2}
    assert len(scanned(zone, spark, "raw/maintenance", "2015-01-02", "2015-01-03", "date")) == 1


def test_other_rows_from_before_the_first_partition_have_a_problem_there(zone, spark):
    put(zone, "telemetry/t.csv", telemetry("2014-12-31 23:00", "2015-01-01 00:00") + "\nsoon,1,1,1,1,1")
    rows = scanned(zone, spark, "raw/telemetry", "2015-01-01", "2015-01-02", "line", "date", "problem")
    assert rows == [
        (2, FIRST_DAY, "before the first day partition (2015-01-01)"),
        (3, FIRST_DAY, None),
        (4, FIRST_DAY, "observed_at 'soon' is not a time"),
    ]
    assert zone.landed_rows("raw/telemetry", FIRST_DAY, day("2015-01-02")) == {FIRST_DAY: 3}


def test_days_are_counted_and_scanned_alike(zone, spark):
    put(
        zone,
        "telemetry/a.csv",
        telemetry("2014-12-25 00:00", "2015-01-05 00:00", "2015-02-05 00:00") + "\nx",
        minute=1,
    )
    put(zone, "telemetry/b.csv", telemetry("2015-01-05 00:00", "2015-01-06 12:00") + "\n,,,,,", minute=2)
    for start, end in (
        ("2015-01-01", "2016-01-01"),
        ("2015-01-05", "2015-01-06"),
        ("2015-01-01", "2015-01-02"),
        ("2015-01-06", "2015-02-06"),
    ):
        counts: dict[dt.date, int] = {}
        for (date,) in scanned(zone, spark, "raw/telemetry", start, end, "date"):
            counts[date] = counts.get(date, 0) + 1
        assert zone.landed_rows("raw/telemetry", day(start), day(end)) == counts


def test_a_fleet_list_holds_until_one_with_a_later_date_replaces_it(zone, spark):
    put(zone, "machines/machines.csv", f"{FLEET}\n1,model1,1\n2,model1,1", minute=1)
    put(zone, "machines/extra.csv", f"{FLEET}\n3,model1,1", minute=2)
    put(zone, "machines/2015-01-03.csv", f"{FLEET}\n2,model1,2", minute=0)
    rows = scanned(zone, spark, MACHINES.key, "2015-01-02", "2015-01-05", "date", "machine_id", "file", "landed_rank")
    second, third, fourth = (day(f"2015-01-0{n}") for n in (2, 3, 4))
    assert rows == [
        (second, 1, "machines.csv", 1),
        (second, 2, "machines.csv", 1),
        (second, 3, "extra.csv", 2),
        (third, 2, "2015-01-03.csv", 0),
        (fourth, 2, "2015-01-03.csv", 0),
    ]
    assert zone.landed_rows(MACHINES.key, day("2015-01-02"), day("2015-01-05")) == {
        second: 3,
        third: 1,
        fourth: 1,
    }


def test_of_lists_dated_before_the_first_partition_the_latest_holds(zone):
    put(zone, "machines/machines.csv", f"{FLEET}\n1,model1,1\n2,model1,1\n3,model1,1")
    put(zone, "machines/2014-01-01.csv", f"{FLEET}\n1,model1,1\n2,model1,1")
    put(zone, "machines/2014-06-01.csv", f"{FLEET}\n1,model1,1")
    assert zone.landed_rows(MACHINES.key, day("2014-12-01"), day("2015-01-03")) == {
        FIRST_DAY: 1,
        day("2015-01-02"): 1,
    }
    assert list(zone.machine_lists()) == [FIRST_DAY]


def test_a_refused_list_replaces_nothing(zone):
    put(zone, "machines/machines.csv", f"{FLEET}\n1,model1,1")
    put(zone, "machines/2015-01-02.csv", "id\n1")
    assert zone.landed_rows(MACHINES.key, day("2015-01-02"), day("2015-01-03")) == {day("2015-01-02"): 1}
    assert [file.name for file in zone.staged(MACHINES.key) if file.refusal] == ["2015-01-02.csv"]


def test_a_file_touches_the_days_of_its_rows_of_its_table_and_no_other(zone):
    put(zone, "maintenance/a.csv", f"{MAINTENANCE}\n2015-01-01,1,comp1\n2015-01-02,1,comp1")
    put(zone, "telemetry/a.csv", telemetry("2015-01-09 06:00"))
    before, other = (zone.days_touched(f"raw/{name}") for name in ("maintenance", "telemetry"))
    put(zone, "maintenance/m.csv", f"{MAINTENANCE}\n2014-06-01,1,comp1\n2015-01-03,1,comp1")
    after = zone.days_touched("raw/maintenance")
    assert set(before) == {day("2015-01-01"), day("2015-01-02")}
    assert {date for date in after if after[date] != before.get(date)} == {
        day("2015-01-01"),
        day("2015-01-03"),
    }
    assert zone.days_touched("raw/maintenance") == after
    assert zone.days_touched("raw/telemetry") == other


def test_a_delivery_of_other_rows_under_the_same_name_touches_old_and_new_days(zone):
    put(zone, "telemetry/a.csv", telemetry("2015-01-01 06:00"))
    put(zone, "telemetry/b.csv", telemetry("2015-01-03 06:00"))
    before = zone.days_touched("raw/telemetry")
    put(zone, "telemetry/a.csv", telemetry("2015-01-02 06:00"), minute=5)
    after = zone.days_touched("raw/telemetry")
    assert {date for date in before | after if after.get(date) != before.get(date)} == {
        day("2015-01-01"),
        day("2015-01-02"),
    }


def test_a_fleet_list_touches_the_day_it_is_in_force_from(zone):
    put(zone, "machines/machines.csv", f"{FLEET}\n1,model1,1")
    before = zone.machine_lists()
    put(zone, "machines/2015-06-01.csv", f"{FLEET}\n1,model1,2")
    after = zone.machine_lists()
    assert list(after) == [FIRST_DAY, day("2015-06-01")]
    assert after[FIRST_DAY] == before[FIRST_DAY]


def test_rows_of_a_file_that_is_taken_away_are_gone(zone):
    path = put(zone, "telemetry/a.csv", telemetry("2015-01-01 06:00"))
    put(zone, "telemetry/b.csv", telemetry("2015-01-02 06:00"))
    assert zone.landed_rows("raw/telemetry", FIRST_DAY, day("2015-01-03")) == {FIRST_DAY: 1, day("2015-01-02"): 1}
    path.unlink()
    assert zone.landed_rows("raw/telemetry", FIRST_DAY, day("2015-01-03")) == {day("2015-01-02"): 1}
    assert list(zone.days_touched("raw/telemetry")) == [day("2015-01-02")]


@pytest.mark.parametrize("left", ["no root", "no folder", "an empty mount point", "nothing that could land"])
def test_a_folder_whose_files_have_all_gone_is_not_taken_for_one_whose_files_were_deleted(zone, tmp_path, left):
    for n in (1, 2):
        put(zone, f"telemetry/{n}.csv", telemetry(f"2015-01-0{n} 06:00"))
    put(zone, "errors/a.csv", "datetime,machineID,errorID\n2015-01-01 06:00:00,1,error1")
    before = zone.days_touched("raw/telemetry")
    assert len(zone.staged("raw/errors")) == 1
    folder = zone.landing_root / "telemetry"
    moved = zone.landing_root if left == "no root" else folder
    moved.rename(tmp_path / "away")
    if left in ("an empty mount point", "nothing that could land"):
        folder.mkdir()
    if left == "nothing that could land":
        for name in ("3.csv.part", ".4.csv", "notes.txt"):
            (folder / name).write_text(telemetry("2015-01-03 06:00"))
    said = rf"{folder} holds none of the 2 files that it had: mount it, .* delete {tmp_path}/staging/telemetry"
    again = LandingZone(zone.landing_root, zone.staging_root, FIRST_DAY)  # another process
    for each in (zone, again):
        for look in (each.days_touched, each.look):
            with pytest.raises(LandingGone, match=said):
                look("raw/telemetry")
    if left != "no root":
        assert len(zone.staged("raw/errors")) == 1
    assert zone.staged("raw/failures") == []  # never had any
    shutil.rmtree(folder, ignore_errors=True)
    (tmp_path / "away").rename(moved)
    assert zone.days_touched("raw/telemetry") == before


def test_rows_of_the_last_file_go_once_one_says_that_it_is_meant(zone, tmp_path):
    path = put(zone, "telemetry/a.csv", telemetry("2015-01-01 06:00"))
    assert list(zone.days_touched("raw/telemetry")) == [FIRST_DAY]
    path.unlink()
    with pytest.raises(LandingGone, match="none of the 1 files"):
        zone.look("raw/telemetry")
    shutil.rmtree(tmp_path / "staging" / "telemetry")
    assert zone.days_touched("raw/telemetry") == {}
    assert zone.landed_rows("raw/telemetry", FIRST_DAY, day("2015-01-02")) == {}
    put(zone, "telemetry/b.csv", telemetry("2015-01-03 06:00"))
    assert list(zone.days_touched("raw/telemetry")) == [day("2015-01-03")]


def test_the_only_file_can_be_replaced_by_one_of_another_name_and_a_refused_one_deleted(zone):
    path = put(zone, "telemetry/a.csv", telemetry("2015-01-01 06:00"))
    assert list(zone.days_touched("raw/telemetry")) == [FIRST_DAY]
    path.unlink()
    put(zone, "telemetry/b.csv", telemetry("2015-01-02 06:00"))
    assert list(zone.days_touched("raw/telemetry")) == [day("2015-01-02")]
    refused = put(zone, "failures/2015-01-01.csv", "when,what")
    assert list(zone.days_touched("raw/failures")) == [FIRST_DAY]
    refused.unlink()
    assert zone.days_touched("raw/failures") == {}


def test_a_data_root_may_have_any_name(tmp_path, spark):
    zone = LandingZone(tmp_path / "landing", tmp_path / "a [b] {c} *d", FIRST_DAY)
    put(zone, "telemetry/ä, b.csv", telemetry("2015-01-01 06:00"))
    assert scanned(zone, spark, "raw/telemetry", "2015-01-01", "2015-01-02", "file") == [("ä, b.csv",)]


def test_an_earlier_version_that_lands_again_is_the_latest(source, tmp_path):
    root = tmp_path / "landing"
    first = (source / "PdM_telemetry.csv").read_text()
    land(source, root)
    (source / "PdM_telemetry.csv").write_text(telemetry("2015-01-01 06:00", volt=2.0))
    land(source, root)
    (source / "PdM_telemetry.csv").write_text(first)
    (again,) = land(source, root)
    assert again.name == "PdM_telemetry-3.csv"
    assert again.read_text() == first
    assert land(source, root) == []


def test_the_newest_change_is_found_though_a_file_is_dated_ahead(tmp_path):
    landing = Landing(root=str(tmp_path / "landing"), staging=str(tmp_path / "staging"), first_day="2015-01-01")
    assert landing.seconds_since_last_change() == float("inf")
    folder = tmp_path / "landing" / "telemetry"
    folder.mkdir(parents=True)
    (folder / "now.csv.part").write_text("")
    (folder / "ahead.csv").write_text("")
    os.utime(folder / "ahead.csv", (time.time() + 3600,) * 2)
    assert landing.seconds_since_last_change() < 10


@pytest.fixture
def outside(tmp_path):
    """A file of this user's that is none of the landing zone's."""
    outside = tmp_path / "outside.csv"
    outside.write_text(telemetry("2015-01-01 06:00"))
    yield outside
    assert outside.read_text() == telemetry("2015-01-01 06:00")
    assert sorted(tmp_path.glob("elsewhere/*")) == []


def test_no_table_is_read_or_written_through_a_link(zone, source, outside, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    zone.landing_root.mkdir()
    (zone.landing_root / "telemetry").symlink_to(elsewhere)
    for look in (zone.files, zone.passed_over, zone.days_touched):
        with pytest.raises(LandingError, match="landing/telemetry is a link: nothing is read or written through it"):
            look("raw/telemetry")
    with pytest.raises(LandingError, match="is a link"):
        land(source, zone.landing_root)
    assert zone.files("raw/errors") == []
    landing = Landing(root=str(zone.landing_root), staging=str(tmp_path / "staging"), first_day="2015-01-01")
    assert landing.stage_in_background() is None  # the tick's next question raises it, this thread must not die of it


@pytest.mark.parametrize("planted", ["telemetry/.PdM_telemetry.csv.landing", "telemetry/PdM_telemetry.csv", ".lock"])
def test_landing_does_not_write_through_a_link_that_waits_for_it(source, outside, tmp_path, planted):
    (tmp_path / "landing" / "telemetry").mkdir(parents=True)
    (tmp_path / "landing" / planted).symlink_to(outside)
    if planted == ".lock":
        with pytest.raises(OSError, match="symbolic links"):
            land(source, tmp_path / "landing")
    else:
        assert all(path.is_file() and not path.is_symlink() for path in land(source, tmp_path / "landing"))


@pytest.mark.parametrize("name", ["t.csv", "t.csv.gz", "t.parquet"])
def test_a_file_that_becomes_a_link_between_the_look_and_the_reading_is_not_followed(zone, outside, name):
    path = put(zone, f"telemetry/{name}", "datetime")
    landed = zone.files("raw/telemetry")
    path.unlink()
    path.symlink_to(outside)
    (staged,) = zone._staging["raw/telemetry"].of(landed)
    assert "can't be opened: Too many levels of symbolic links" in staged.refusal
    with pytest.raises(OSError, match="symbolic links"):
        columns_of(path, TELEMETRY_TABLE)
    with pytest.raises(OSError, match="symbolic links"):
        list(read_landed(path, TELEMETRY_TABLE))


def test_the_replay_writes_no_file_through_a_link(tmp_path, outside):
    simulate(tmp_path / "files", machines=1, days=2, end=utc("2015-01-03 00:00"), seed=1, progress=lambda _: None)
    replayer = Replayer(tmp_path / "files", tmp_path / "landing")
    for partial in ("machines/.machines.csv.part", "telemetry/.telemetry-2015-01-01.csv.part"):
        (tmp_path / "landing" / partial).parent.mkdir(parents=True)
        (tmp_path / "landing" / partial).symlink_to(outside)
    assert not any(path.is_symlink() for path in [*replayer.land_machines(), *replayer.land_day(day("2015-01-01"))])


def repeating(zone, table, start, end):
    return sorted(map(str, zone.look(table).repeating_days(day(start), day(end))))


def test_a_key_may_repeat_within_a_file_or_where_two_files_have_rows_of_a_day(zone):
    put(zone, "telemetry/a.csv", telemetry("2015-01-01 06:00", "2015-01-10 06:00"))
    put(zone, "telemetry/b.csv", telemetry("2015-01-11 06:00", "2015-01-21 06:00", "2015-01-21 06:00"))
    assert repeating(zone, "raw/telemetry", "2015-01-01", "2015-01-20") == []
    # of a file the days of its bucket, 17 to 24 January
    assert repeating(zone, "raw/telemetry", "2015-01-01", "2015-01-22") == ["2015-01-21"]
    put(zone, "telemetry/c.csv", telemetry("2015-01-10 07:00", machine=2))
    assert repeating(zone, "raw/telemetry", "2015-01-01", "2015-01-22") == ["2015-01-10", "2015-01-21"]
    assert repeating(zone, "raw/telemetry", "2015-01-10", "2015-01-11") == ["2015-01-10"]
    assert repeating(zone, "raw/telemetry", "2015-01-11", "2015-01-12") == []


def test_days_before_the_first_are_one_partition(zone):
    put(zone, "maintenance/a.csv", f"{MAINTENANCE}\n2014-06-01,1,comp1\n2014-06-02,1,comp1")
    assert repeating(zone, "raw/maintenance", "2015-01-01", "2015-01-02") == []
    put(zone, "maintenance/b.csv", f"{MAINTENANCE}\n2014-07-01,1,comp1")
    assert repeating(zone, "raw/maintenance", "2015-01-01", "2015-01-02") == ["2015-01-01"]
    assert repeating(zone, "raw/maintenance", "2015-01-02", "2015-01-03") == []


def test_machines_may_repeat_in_a_list_and_where_two_lists_hold(zone):
    put(zone, "machines/machines.csv", f"{FLEET}\n1,model3,18\n2,model3,18")
    put(zone, "machines/machines-2015-01-03.csv", f"{FLEET}\n1,model3,18")
    assert repeating(zone, "raw/machines", "2015-01-01", "2015-02-01") == []
    put(zone, "machines/more-machines-2015-01-03.csv", f"{FLEET}\n2,model3,18")
    assert repeating(zone, "raw/machines", "2015-01-01", "2015-01-03") == []
    assert repeating(zone, "raw/machines", "2015-01-03", "2015-01-04") == ["2015-01-03"]
    put(zone, "machines/machines-2015-01-05.csv", f"{FLEET}\n1,model3,18\n1,model4,18")
    assert repeating(zone, "raw/machines", "2015-01-03", "2015-01-07") == [f"2015-01-0{n}" for n in (3, 4, 5, 6)]
