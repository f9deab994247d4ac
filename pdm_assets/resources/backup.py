"""A data root as one archive, taken while nothing writes, and put back whole or not at all.

The archive is a tar file with the manifest as its last member: size, time and checksum of every file, and the mode of every
folder, for those who land may have folders of their own. Times are kept to the nanosecond: the landing zone knows a file by its
time, and Delta takes a version's age from that of its log file.
"""

import contextlib
import datetime as dt
import errno
import hashlib
import json
import os
import shutil
import sqlite3
import stat
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import IO

from pdm_assets.resources.hold import BACKUP, LakeHeld
from pdm_assets.resources.lake import Lake
from pdm_assets.resources.staging import locked

MANIFEST = "MANIFEST.json"
MADE_ANEW = ("staging", "engine", "demo")  # folders of the data root
NOT_KEPT = (".lock", "-wal", "-shm", "-journal", ".part")  # a database's journals are in the copy that is made of it


class BackupError(RuntimeError):
    """A backup can't be taken or put back; the text says why and what to do."""


@dataclass(frozen=True)
class Entry:
    """A file of the archive."""

    path: str
    size: int
    mtime_ns: int
    sha256: str


def back_up(data: Path, lake: Lake, target: Path, wait: float) -> tuple[Path, list[Entry]]:
    """Put the data root into an archive: `target`, or a new file named by the time if it is a folder.

    Raises:
        BackupError: if something writes for longer than `wait` seconds, or the archive would be inside of the data root.
    """
    data, target = data.absolute(), target.absolute()
    if not data.is_dir():
        raise BackupError(f"{data} is no folder: PDM_DATA says what to back up")
    if target.is_dir():
        target /= f"pdm-assets-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}.tar.gz"
    if target.exists():
        raise BackupError(f"{target} exists already: give another name")
    if target.is_relative_to(data):
        raise BackupError(f"{target} is inside of {data}: what destroys the one would destroy the other")
    partial = target.with_name(f".{target.name}.part")
    try:
        with (
            _nobody_writes(data, lake, wait),
            open(os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "wb") as out,
            tarfile.open(fileobj=out, mode="w:gz", format=tarfile.PAX_FORMAT, compresslevel=1) as archive,
        ):
            entries = [_add(archive, data, path) for path in _files(data)]
            manifest = {
                "release": version("pdm-assets"),
                "files": [asdict(entry) for entry in entries],
                "folders": {
                    folder.relative_to(data).as_posix(): f"{stat.S_IMODE(folder.stat().st_mode):o}" for folder, _ in _kept(data)
                },
            }
            content = json.dumps(manifest).encode()
            archive.addfile(_member(MANIFEST, len(content), time.time_ns()), BytesIO(content))
        partial.replace(target)
    except OSError as error:
        raise BackupError(f"the backup was not made: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return target, entries


@contextlib.contextmanager
def _nobody_writes(data: Path, lake: Lake, wait: float) -> Iterator[None]:
    """Keep runs from the lake and `land` from the landing zone: what comes meanwhile waits.

    All of it at once or nothing: who has the one may be waiting for the other.
    """
    deadline = time.monotonic() + wait
    while True:
        with contextlib.ExitStack() as held:
            try:
                _take_all(held, data, lake)
            except (LakeHeld, BackupError) as error:
                if time.monotonic() >= deadline:
                    raise BackupError(f"{error}: try again once it is over, or give it time with --wait SECONDS") from error
            else:
                yield
                return
        time.sleep(0.5)


def _take_all(held: contextlib.ExitStack, data: Path, lake: Lake) -> None:
    held.enter_context(lake.held_by(f"{BACKUP} (pid {os.getpid()})"))
    if (landing := data / "landing").is_dir():
        try:
            held.enter_context(locked(landing, wait=False))
        except BlockingIOError as error:
            raise BackupError("files are being landed") from error


def _kept(data: Path) -> Iterator[tuple[Path, list[str]]]:
    """The folders to keep, in order and the root first, each with the names of what in it is no folder."""
    tops = [top for top in sorted(data.iterdir()) if top.name not in MADE_ANEW]
    yield data, [top.name for top in tops if not top.is_dir()]
    for top in tops:
        for folder, below, names in os.walk(top):
            below[:] = sorted(name for name in below if not (name.startswith(".") and name.endswith(".part")))
            yield Path(folder), sorted(names)


def _files(data: Path) -> Iterator[Path]:
    """The files to keep, in order. Links inside are left out: nothing of the platform makes or reads any."""
    for path in (folder / name for folder, names in _kept(data) for name in names if not name.endswith(NOT_KEPT)):
        if path.is_file() and not path.is_symlink():
            yield path


def _add(archive: tarfile.TarFile, data: Path, path: Path) -> Entry:
    name = path.relative_to(data).as_posix()
    with _stable(path, is_database=name.startswith("dagster/")) as file:
        # The time of the file itself: a database's copy has another.
        member = _member(name, os.fstat(file.fileno()).st_size, path.stat().st_mtime_ns)
        reading = _Digesting(file)
        archive.addfile(member, reading)
    return Entry(name, member.size, int(member.pax_headers["pdm.mtime_ns"]), reading.digest.hexdigest())


def _member(name: str, size: int, mtime_ns: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = size, mtime_ns // 10**9, 0o600
    member.pax_headers = {"pdm.mtime_ns": str(mtime_ns)}
    return member


@contextlib.contextmanager
def _stable(path: Path, *, is_database: bool) -> Iterator[IO[bytes]]:
    """A file to read; of an SQLite database, which Dagster may be writing, a copy as of one moment."""
    with path.open("rb") as file:
        if not is_database or file.read(16) != b"SQLite format 3\0":
            file.seek(0)
            yield file
            return
    with tempfile.NamedTemporaryFile() as copy:
        try:
            with (
                contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=60)) as source,
                contextlib.closing(sqlite3.connect(copy.name)) as target,
            ):
                source.backup(target)
        except sqlite3.Error as error:
            raise BackupError(
                f"{path} is a database that can't be copied: {error}. If it is damaged, stop Dagster and put it back from an "
                "earlier backup, or move it away"
            ) from error
        with open(copy.name, "rb") as file:
            yield file


class _Digesting:
    """A file that is digested as it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        piece = self.file.read(size)
        self.digest.update(piece)
        return piece


def put_back(archive: Path, data: Path) -> list[Entry]:
    """Unpack an archive beside the data root, compare every file with the manifest, then give it its name.

    Raises:
        BackupError: if the data root holds anything, is a mount point or can't be made, or the archive is damaged: then nothing
        is left of it.
    """
    data = data.absolute()
    try:
        if os.path.ismount(data):
            raise OSError(errno.EBUSY, "is a mount point")
        if data.exists() and (not data.is_dir() or any(data.iterdir())):
            raise BackupError(f"{data} is not empty: name another PDM_DATA, or move it away first")
        data.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{data.name}-", suffix=".part", dir=data.parent, ignore_cleanup_errors=True
        ) as partial:
            root = Path(partial) / data.name  # a folder as any other, below one that is its owner's alone
            root.mkdir()
            entries = _unpack(archive, root)
            if data.exists():
                data.rmdir()
            root.replace(data)
    except (OSError, EOFError, tarfile.TarError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, OSError) and error.errno == errno.EBUSY:
            raise BackupError(
                f"{data} is a mount point, and what is put back takes the place of a folder: "
                f"set PDM_DATA to one below it, such as {data / 'data'}"
            ) from error
        raise BackupError(f"{archive} can't be put back: {error}") from error
    return entries


def _unpack(archive: Path, folder: Path) -> list[Entry]:
    found: dict[str, Entry] = {}
    manifest: bytes | None = None
    with tarfile.open(archive) as packed:
        for member in packed:
            content = packed.extractfile(member)
            if content is None or not _is_inside(member.name):
                raise BackupError(f"{archive} is no backup: it holds {member.name!r}, which is no file of a data root")
            if member.name == MANIFEST:
                manifest = content.read()
                continue
            path, mtime_ns = folder / member.name, int(member.pax_headers["pdm.mtime_ns"])
            path.parent.mkdir(parents=True, exist_ok=True)
            reading = _Digesting(content)
            with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666), "wb") as out:
                shutil.copyfileobj(reading, out)
            os.utime(path, ns=(mtime_ns, mtime_ns))
            found[member.name] = Entry(member.name, path.stat().st_size, mtime_ns, reading.digest.hexdigest())
    if manifest is None:
        raise BackupError(f"{archive} ends before its manifest: it is not whole")
    told = json.loads(manifest)
    entries = [Entry(**entry) for entry in told["files"]]
    wrong = [entry.path for entry in entries if found.pop(entry.path, None) != entry] + list(found)
    if wrong:
        raise BackupError(f"{archive} is damaged: {len(wrong)} files are not as the manifest says, such as {wrong[0]}")
    # Not told by archives of earlier releases. The deepest first: one that may not be written comes after what is in it.
    for name, mode in sorted(told.get("folders", {}).items(), reverse=True):
        if not _is_inside(name):
            raise BackupError(f"{archive} is no backup: it holds {name!r}, which is no folder of a data root")
        path = folder / name
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(int(mode, 8))
    return entries


def _is_inside(name: str) -> bool:
    return not name.startswith("/") and ".." not in Path(name).parts
