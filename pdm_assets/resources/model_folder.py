"""A saved model's folder: sealed with checksums when it is written, checked when it is read, moved as one archive."""

import hashlib
import json
import os
import re
import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any

SUMS = "SHA256SUMS"  # as sha256sum writes and `sha256sum -c` reads it
LARGEST_ARCHIVE = 4 * 2**30  # bytes unpacked: a forest of a big fleet has some tens of MiB
MOST_FILES = 10_000  # in an archive: a forest has some dozens
TRUSTED_CLASSES = re.compile(
    r"(org\.apache\.spark|pyspark)\.ml\.(pipeline\.)?PipelineModel|(org\.apache\.spark|pyspark)\.ml\.(classification|feature)\.\w+"
)
STAGE = re.compile(r"\w+")  # with a slash in it, Spark would read a stage from anywhere


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
        sums = (folder / SUMS).read_text()
    except ValueError as error:
        raise ModelFolderError(f"{folder / SUMS} is no text: {error}") from error
    expected = dict(line.split("  ", 1)[::-1] for line in sums.split("\n") if "  " in line)
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

    A saved pipeline names the classes that read it, and where its stages are: only classes of Spark's own ML library are let
    in, and no stage outside of the folder.

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
            if len(packed.infolist()) > MOST_FILES:
                raise ModelFolderError(
                    f"{archive} holds {len(packed.infolist()):,} files: more than any model of this platform"
                )
            size = sum(entry.file_size for entry in packed.infolist())
            if size > LARGEST_ARCHIVE:
                raise ModelFolderError(f"{archive} would unpack to {size:,} bytes: more than any model of this platform")
            for entry in packed.infolist():
                parts = PurePosixPath(entry.filename).parts
                if entry.filename.startswith("/") or ".." in parts or "\\" in entry.filename or stat.S_ISLNK(_mode(entry)):
                    raise ModelFolderError(f"{archive} holds {entry.filename!r}, which is outside of the model's folder")
            packed.extractall(folder)
    except ModelFolderError:
        raise
    except Exception as error:  # whatever a hostile archive makes zipfile and its decompressors raise: it is refused
        raise ModelFolderError(f"{archive} can't be unpacked: {error!r}") from error


def _mode(entry: zipfile.ZipInfo) -> int:
    return entry.external_attr >> 16


def _check_classes(folder: Path) -> None:
    """Look at every file that Spark may read as metadata: it takes the first line of any file there, whatever its name."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        is_metadata = "metadata" in str(path.relative_to(folder)).lower().split("/")
        if not is_metadata or path.name == "_SUCCESS" or path.name.startswith("."):
            continue
        try:
            metadata = json.loads(path.read_text(), object_pairs_hook=_once)
            name, stages = metadata["class"], metadata.get("paramMap", {}).get("stageUids", ())
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ModelFolderError(f"{path} does not name the class that reads it") from error
        if not TRUSTED_CLASSES.fullmatch(str(name)):
            raise ModelFolderError(f"{path} names {name}, which is not a class of Spark's ML library that this platform uses")
        if bad := [uid for uid in stages if not STAGE.fullmatch(str(uid))]:
            raise ModelFolderError(f"{path} names the stage {bad[0]!r}, which is outside of the model's folder")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; of a key that is there twice, Spark and Python take different ones."""
    if len(pairs) != len(dict(pairs)):
        raise ValueError("a key is there twice")
    return dict(pairs)


def _digests(folder: Path) -> dict[str, str]:
    found = {}
    for directory, _, names in os.walk(folder):
        for name in names:
            path = Path(directory) / name
            if path != folder / SUMS:
                with path.open("rb") as file:
                    found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return dict(sorted(found.items()))
