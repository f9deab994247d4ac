"""A saved model's folder: sealed with checksums when it is written, checked when it is read, moved as one archive."""

import hashlib
import json
import lzma
import os
import shutil
import zipfile
import zlib
from pathlib import Path, PurePosixPath

SUMS = "SHA256SUMS"  # as sha256sum writes and `sha256sum -c` reads it
LARGEST_ARCHIVE = 4 * 2**30  # bytes unpacked: a forest of a big fleet has some tens of MiB
# What zipfile raises at archives that are damaged, encrypted, or of a kind that it does not know.
UNREADABLE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError, ValueError, EOFError, OSError)
TRUSTED_CLASSES = ("org.apache.spark.ml.", "pyspark.ml.")


class ModelFolderError(ValueError):
    """A model's folder or archive can't be trusted; the text says what is wrong with which file."""


def seal(folder: Path) -> None:
    """Write down the checksums of all files."""
    lines = [f"{digest}  {name}\n" for name, digest in _digests(folder).items()]
    (folder / SUMS).write_text("".join(lines))


def check(folder: Path) -> None:
    """Compare all files with their checksums.

    Raises:
        ModelFolderError: if one is missing, changed or was added, or the checksums are missing or no text.
    """
    if not (folder / SUMS).is_file():
        raise ModelFolderError(f"{folder} has no {SUMS}: it was never written whole")
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ModelFolderError(f"{folder / SUMS} is not what was written: {error}") from error
    expected = dict(line.split("  ", 1)[::-1] for line in lines if "  " in line)
    found = _digests(folder)
    for name in sorted({*expected, *found}):
        if name not in found:
            raise ModelFolderError(f"{folder} lacks {name}")
        if name not in expected:
            raise ModelFolderError(f"{folder} holds {name}, which is not of the model")
        if found[name] != expected[name]:
            raise ModelFolderError(f"{folder / name} is not what was written: its checksum differs")


def pack(folder: Path, archive: Path) -> None:
    """Put a checked folder into a zip file, whole or not at all.

    Raises:
        ModelFolderError: if the folder is not as it was written, or the file can't be written.
    """
    check(folder)
    partial = archive.with_name(f".{archive.name}.part")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as packed:
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                packed.write(path, path.relative_to(folder).as_posix())
        partial.replace(archive)
    except OSError as error:
        raise ModelFolderError(f"{archive} can't be written: {error}") from error
    finally:
        if partial.exists():
            partial.unlink()


def unpack(archive: Path, folder: Path) -> None:
    """Unpack into a new folder and check it; what is not right leaves nothing behind.

    A saved pipeline names the classes that read it: only those of Spark's own ML library are let in.

    Raises:
        ModelFolderError: if the archive is damaged, too large, reaches out of the folder, or holds other classes.
    """
    try:
        _extract(archive, folder)
        check(folder)
        _check_classes(folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _extract(archive: Path, folder: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as packed:
            size = sum(entry.file_size for entry in packed.infolist())
            if size > LARGEST_ARCHIVE:
                raise ModelFolderError(f"{archive} would unpack to {size:,} bytes: more than any model of this platform")
            for entry in packed.infolist():
                parts = PurePosixPath(entry.filename).parts
                if entry.filename.startswith("/") or ".." in parts or "\\" in entry.filename:
                    raise ModelFolderError(f"{archive} holds {entry.filename!r}, which is outside of the model's folder")
            packed.extractall(folder)
    except ModelFolderError:
        raise
    except UNREADABLE as error:
        raise ModelFolderError(f"{archive} can't be unpacked: {error}") from error


def _check_classes(folder: Path) -> None:
    for path in sorted(folder.rglob("metadata/part-*")):
        try:
            name = json.loads(path.read_text())["class"]
        except (ValueError, KeyError, TypeError) as error:
            raise ModelFolderError(f"{path} does not name the class that reads it") from error
        if not str(name).startswith(TRUSTED_CLASSES):
            raise ModelFolderError(f"{path} names {name}, which is not a class of Spark's ML library")


def _digests(folder: Path) -> dict[str, str]:
    found = {}
    for directory, _, names in os.walk(folder):
        for name in names:
            path = Path(directory) / name
            if path != folder / SUMS:
                with path.open("rb") as file:
                    found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return dict(sorted(found.items()))
