"""Files that are bad by their number, their size, or by what happens to them while they are read."""

import datetime as dt
import gzip
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from pdm_assets.resources import landed_rows
from pdm_assets.resources.landing import LandingZone
from pdm_assets_tests.bad_inputs.corpus import AT, DAY, rows
from pdm_assets_tests.builders import day

READING = f"{AT},1,170.5,450,100,40"
KEY = "raw/telemetry"
LONG_AGO = (1_600_000_000, 1_600_000_000)
SECONDS_A_FILE, SECONDS_A_KNOWN_FILE = 0.02, 0.001  # of one core; measured 0.004 and 0.0001
MOST_MB = 1000  # resident, whatever the size of the file; measured 510 with two cores and 300 MB


def zone_of(root: Path) -> LandingZone:
    (root / "landing" / "telemetry").mkdir(parents=True, exist_ok=True)
    return LandingZone(root / "landing", root / "staging", day("2015-01-01"))


def put(path: Path, content: str | bytes, at: tuple[int, int] = LONG_AGO) -> None:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    os.utime(path, at)


@pytest.mark.parametrize("count", [100, pytest.param(10_000, marks=pytest.mark.long)])
def test_any_number_of_tiny_files_in_one_folder_is_taken_in_proportion_to_it(tmp_path, spark, count):
    zone = zone_of(tmp_path)
    start = dt.datetime(2015, 3, 28)
    for n in range(count):
        put(zone.landing_root / "telemetry" / f"{n}.csv", rows(READING.replace(AT, str(start + dt.timedelta(seconds=n)))))
    begun = time.process_time()  # not the clock on the wall: others work here too
    assert len(zone.staged(KEY)) == count
    first = time.process_time() - begun
    assert len(zone.staged(KEY)) == count
    again = time.process_time() - begun - first
    print(f"{count} files: {first:.2f} s, known ones {again:.3f} s")
    assert first < SECONDS_A_FILE * count
    assert again < max(SECONDS_A_KNOWN_FILE * count, 0.1)
    look = zone.look(KEY)
    assert look.rows(day(DAY), day("2015-03-29")) == {day(DAY): count}
    assert look.scan(spark, day(DAY), day("2015-03-29")).select("observed_at").distinct().count() == count


STAGE = """
import resource, sys
from pathlib import Path
from pdm_assets.resources.landing import LandingZone
from pdm_assets_tests.builders import day

root = Path(sys.argv[1])
(staged,) = LandingZone(root / "landing", root / "staging", day("2015-01-01")).staged("raw/telemetry")
assert staged.refusal is None, staged.refusal
print(staged.rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.parametrize(
    ("megabytes", "packed"),
    [(300, False), pytest.param(300, True, marks=pytest.mark.slow), pytest.param(5_000, False, marks=pytest.mark.long)],
)
def test_a_large_file_is_streamed_in_bounded_memory(tmp_path, megabytes, packed):
    # a year in whatever order: of each block of lines every bucket of days gets some
    times = [dt.datetime(2015, 1, 1) + dt.timedelta(hours=hour) for hour in range(8760)]
    lines = [f"{at},{n % 97},{170 + n % 13}.{n % 1009},{450 - n % 31}.5,100.{n % 7},40\n" for n, at in enumerate(times)]
    block = "".join(lines).encode()
    blocks = megabytes * 1_000_000 // len(block) + 1
    path = zone_of(tmp_path).landing_root / "telemetry" / ("large.csv.gz" if packed else "large.csv")
    with gzip.open(path, "wb", compresslevel=1) if packed else path.open("wb") as out:
        out.write(b"datetime,machineID,volt,rotate,pressure,vibration\n")
        for _ in range(blocks):
            out.write(block)
    os.utime(path, LONG_AGO)
    done = subprocess.run(
        [sys.executable, "-c", STAGE, tmp_path], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )
    path.unlink()
    assert done.returncode == 0, done.stderr[-2000:]
    count, most_mb = map(int, done.stdout.split())
    print(f"{megabytes} MB, packed: {packed}: {count:,} rows, {most_mb} MB resident")
    assert count == blocks * len(lines)
    assert most_mb < MOST_MB


def delete(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    put(path.with_name(".new"), rows(READING, READING.replace("06:00", "07:00")))
    os.replace(path.with_name(".new"), path)


def cut(path: Path) -> None:
    put(path, rows())


def append(path: Path) -> None:
    with path.open("a") as out:
        out.write(READING.replace("06:00", "08:00") + "\n")


@pytest.mark.parametrize(("happens", "then"), [(delete, None), (replace, 2), (cut, 0), (append, 2)])
def test_a_file_that_changes_while_it_is_read_is_taken_as_it_is_afterwards_or_not_at_all(tmp_path, monkeypatch, happens, then):
    zone, read = zone_of(tmp_path), landed_rows.read_landed
    path = zone.landing_root / "telemetry" / "changing.csv"
    put(path, rows(READING))
    put(path.with_name("other.csv"), rows(READING))

    def read_meanwhile(landed, table):
        for n, batch in enumerate(read(landed, table)):
            yield batch
            if n == 0 and landed == path:
                happens(path)

    with monkeypatch.context() as patch:
        patch.setattr(landed_rows, "read_landed", read_meanwhile)
        assert [(file.name, file.rows) for file in zone.staged(KEY)] == [("other.csv", 1)]
    assert not list((tmp_path / "staging" / "telemetry").glob(".staging-*"))
    if path.exists():
        os.utime(path, (1_600_000_001, 1_600_000_001))
    assert {file.name: file.rows for file in zone.staged(KEY)} == {
        "other.csv": 1,
        **({} if then is None else {"changing.csv": then}),
    }


DENIED = """
import os, sys
from pathlib import Path
from pdm_assets.resources import landed_rows, staged_buckets  # while the interpreter's files can be read
from pdm_assets.resources.landing import LandingZone
from pdm_assets_tests.builders import day

root = Path(sys.argv[1])
"".encode("utf-8-sig")  # loads the codec
if os.getuid() == 0:  # whom no permission binds
    os.setuid(65534)
zone = LandingZone(root / "landing", root / "staging", day("2015-01-01"))
for file in zone.staged("raw/telemetry"):
    print(file.name, file.rows, file.refusal)
try:
    zone.staged("raw/errors")
except OSError as error:
    print(error)
"""


def test_what_may_not_be_read_is_named_and_keeps_nothing_else_out():
    with tempfile.TemporaryDirectory() as folder:  # that of pytest is closed to other users
        root = Path(folder)
        zone = zone_of(root)
        for name in ("closed.csv", "open.csv"):
            put(zone.landing_root / "telemetry" / name, rows(READING))
        (zone.landing_root / "telemetry" / "closed.csv").chmod(0)
        (zone.landing_root / "errors").mkdir(mode=0)
        (root / "staging").mkdir()
        (root / "staging").chmod(0o777)
        root.chmod(0o755)
        done = subprocess.run(
            [sys.executable, "-c", DENIED, root], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
        )
        (zone.landing_root / "errors").chmod(0o700)
    assert done.stdout.splitlines() == [
        "closed.csv 0 closed.csv: can't be opened: Permission denied. It is tried again until it can, or is gone",
        "open.csv 1 None",
        f"[Errno 13] Permission denied: '{root / 'landing' / 'errors'}'",
    ], done.stderr[-2000:]
