"""Saved models as folders and archives: what was written is what is read, or it is refused with its reason."""

import hashlib
import json
import os
import subprocess
import zipfile

import pytest

from pdm_assets.resources.model_folder import SUMS, ModelFolderError, check, pack, seal, unpack

METADATA = "pipeline/stages/0_Tree/metadata/part-00000.txt"


@pytest.fixture
def folder(tmp_path):
    """A sealed folder of a model's form."""
    folder = tmp_path / "tree-2026-01-01"
    for name, text in {
        "card.json": "{}",
        METADATA: json.dumps({"class": "org.apache.spark.ml.classification.DecisionTreeClassificationModel"}),
        "pipeline/stages/0_Tree/metadata/.part-00000.txt.crc": "crc",
        "pipeline/stages/0_Tree/data/part-00000.parquet": "rows",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    seal(folder)
    return folder


def test_the_checksums_are_those_of_sha256sum(folder):
    lines = (folder / SUMS).read_text().splitlines()
    assert len(lines) == 4
    assert f"{hashlib.sha256(b'{}').hexdigest()}  card.json" in lines
    subprocess.run(["sha256sum", "--check", "--quiet", SUMS], cwd=folder, check=True)
    check(folder)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: (f / METADATA).write_text("{}"), r"part-00000.txt is not what was written"),
        (lambda f: (f / "card.json").unlink(), r"lacks card.json"),
        (lambda f: (f / "more.bin").write_text("?"), r"holds more.bin, which is not of the model"),
        (lambda f: (f / SUMS).write_bytes(b"\xff\xfe  card.json"), r"SHA256SUMS is not what was written: .* can't decode"),
        (lambda f: (f / SUMS).unlink(), r"has no SHA256SUMS: it was never written whole"),
    ],
)
def test_a_damaged_folder_is_told_by_the_file_that_is_wrong(folder, tmp_path, damage, said):
    damage(folder)
    with pytest.raises(ModelFolderError, match=said):
        check(folder)
    with pytest.raises(ModelFolderError, match=said):
        pack(folder, tmp_path / "model.zip")
    assert not (tmp_path / "model.zip").exists()


def test_a_packed_folder_unpacks_to_the_same_files(folder, tmp_path):
    pack(folder, tmp_path / "model.zip")
    unpack(tmp_path / "model.zip", tmp_path / "other")
    assert _content(tmp_path / "other") == _content(folder)


def _content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _change(folder, tmp_path, **files):
    """An archive of the folder with other files in it, its checksums made to fit."""
    for name, text in files.items():
        (folder / name).write_text(text)
    seal(folder)
    pack(folder, tmp_path / "model.zip")


def _cut(folder, tmp_path):
    pack(folder, tmp_path / "model.zip")
    os.truncate(tmp_path / "model.zip", 300)


def _escape(folder, tmp_path):
    pack(folder, tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip", "a") as archive:
        archive.writestr("../../evil.txt", "evil")


def _with_bytes(at, new):
    """Change bytes of the first file's local header and of its entry in the directory, or of its content."""

    def prepare(folder, tmp_path):
        pack(folder, tmp_path / "model.zip")
        content = bytearray((tmp_path / "model.zip").read_bytes())
        for place in at(content):
            content[place : place + len(new)] = new
        (tmp_path / "model.zip").write_bytes(content)

    return prepare


def _flags(content):
    return 6, content.index(b"PK\1\2") + 8


def _method(content):
    return 8, content.index(b"PK\1\2") + 10


def _deflated(content):
    return (30 + int.from_bytes(content[26:28], "little"),)


def _add_unsealed(folder, tmp_path):
    pack(folder, tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip", "a") as archive:
        archive.writestr("evil.txt", "evil")


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (_cut, "can't be unpacked"),
        (_with_bytes(_flags, b"\x01"), "can't be unpacked: File .* is encrypted"),
        (_with_bytes(_method, b"\x63"), "can't be unpacked: .*compression method"),
        (_with_bytes(_deflated, b"\xff"), "can't be unpacked: Error -3 while decompressing"),
        (_escape, "'../../evil.txt', which is outside"),
        (_add_unsealed, "holds evil.txt"),
        (lambda f, t: _change(f, t, **{METADATA: '{"class": "os.system"}'}), "names os.system, which is not a class of Spark"),
        (lambda f, t: _change(f, t, **{METADATA: "[]"}), "does not name the class that reads it"),
        (lambda _, t: (t / "model.zip").write_text("no zip"), "can't be unpacked"),
    ],
)
def test_an_archive_that_is_not_right_leaves_nothing_behind(folder, tmp_path, prepare, said):
    prepare(folder, tmp_path)
    with pytest.raises(ModelFolderError, match=said):
        unpack(tmp_path / "model.zip", tmp_path / "deep" / "other")
    assert not (tmp_path / "deep" / "other").exists()
    assert not list(tmp_path.rglob("evil.txt"))


def test_an_archive_that_unpacks_to_too_much_is_refused_before_it_is(folder, tmp_path, monkeypatch):
    pack(folder, tmp_path / "model.zip")
    monkeypatch.setattr("pdm_assets.resources.model_folder.LARGEST_ARCHIVE", 100)
    with pytest.raises(ModelFolderError, match="would unpack to"):
        unpack(tmp_path / "model.zip", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_an_archive_that_can_not_be_written_is_told_and_nothing_is_left(folder, tmp_path):
    with pytest.raises(ModelFolderError, match=r"model\.zip can't be written: .*No such file or directory"):
        pack(folder, tmp_path / "nowhere" / "model.zip")
    (tmp_path / "full").mkdir()
    with pytest.raises(ModelFolderError, match="full can't be written"):  # a folder has its name
        pack(folder, tmp_path / "full")
    assert not list(tmp_path.glob(".*"))
