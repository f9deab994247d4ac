"""Saved models as folders and archives: what was written is what is read, or it is refused with its reason."""

import hashlib
import json
import os
import stat
import subprocess
import zipfile

import pytest

from pdm_assets.resources.model_folder import SUMS, ModelFolderError, check, pack, seal, unpack

METADATA = "pipeline/stages/0_Tree/metadata/part-00000.txt"
BESIDE = "pipeline/stages/0_Tree/metadata/a.json"
TREE = "org.apache.spark.ml.classification.DecisionTreeClassificationModel"


@pytest.fixture
def folder(tmp_path):
    """A sealed folder of a model's form."""
    folder = tmp_path / "tree-2026-01-01"
    for name, text in {
        "card.json": "{}",
        METADATA: json.dumps({"class": TREE}),
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
        (lambda f: (f / SUMS).write_bytes(b"\xff\xfe  card.json"), r"SHA256SUMS is no text: .* can't decode"),
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


def _add(folder, tmp_path, entry, content="evil"):
    pack(folder, tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip", "a") as archive:
        archive.writestr(entry, content)


def _link(name):
    entry = zipfile.ZipInfo(name)
    entry.create_system, entry.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return entry


def _spoil(folder, tmp_path, offset, byte):
    """Change a byte of the first entry's record in the archive's directory."""
    pack(folder, tmp_path / "model.zip")
    content = bytearray((tmp_path / "model.zip").read_bytes())
    content[content.index(b"PK\x01\x02") + offset] = byte
    (tmp_path / "model.zip").write_bytes(content)


def _no_text(folder, tmp_path):
    (folder / SUMS).write_bytes(b"\xff\xfe")
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.write(folder / SUMS, SUMS)


def _metadata(name=TREE, *stages):
    return json.dumps({"class": name, "uid": "x", "paramMap": {"stageUids": stages}})


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (_cut, "can't be unpacked"),
        (lambda f, t: _add(f, t, "../../evil.txt"), "'../../evil.txt', which is outside"),
        (lambda f, t: _add(f, t, "evil.txt"), "holds evil.txt"),
        (lambda f, t: _change(f, t, **{METADATA: '{"class": "os.system"}'}), "names os.system, which is not a class of Spark"),
        (lambda f, t: _change(f, t, **{METADATA: "[]"}), "does not name the class that reads it"),
        (lambda f, t: _change(f, t, **{METADATA: "[" * 100_000}), "does not name the class that reads it"),
        # Spark reads whatever file is there, and the first of two equal keys
        (lambda f, t: _change(f, t, **{BESIDE: '{"class": "os.system"}'}), "names os.system"),
        (lambda f, t: _change(f, t, **{METADATA: f'{{"class": "os.system", "class": "{TREE}"}}'}), "does not name the class"),
        (
            lambda f, t: _change(f, t, **{METADATA: _metadata("pyspark.ml.connect.classification.Model")}),
            "names pyspark.ml.conn",
        ),
        (
            lambda f, t: _change(f, t, **{METADATA: _metadata("org.apache.spark.ml.feature.X.os.system")}),
            "is not a class of Spark",
        ),
        (
            lambda f, t: _change(f, t, **{METADATA: _metadata(TREE, "x/../../../../tmp/evil")}),
            "names the stage 'x/../../../../tmp",
        ),
        (_no_text, "SHA256SUMS is no text"),
        (lambda f, t: _add(f, t, "/tmp/evil.txt"), "'/tmp/evil.txt', which is outside"),
        (lambda f, t: _add(f, t, "C:\\evil.txt"), "which is outside"),
        (lambda f, t: _add(f, t, _link("pipeline/evil.txt"), "/etc/passwd"), "'pipeline/evil.txt', which is outside"),
        (lambda f, t: _add(f, t, "card.json/evil.txt"), "can't be unpacked"),
        (lambda f, t: _spoil(f, t, offset=8, byte=1), "can't be unpacked.*(encrypted|password)"),
        (lambda f, t: _spoil(f, t, offset=10, byte=99), "can't be unpacked.*compression"),
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


def test_an_archive_of_too_many_files_is_refused_before_it_fills_the_disk(folder, tmp_path, monkeypatch):
    pack(folder, tmp_path / "model.zip")
    monkeypatch.setattr("pdm_assets.resources.model_folder.MOST_FILES", 3)
    with pytest.raises(ModelFolderError, match="holds 5 files: more than any model"):
        unpack(tmp_path / "model.zip", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_an_archive_that_can_not_be_written_is_told_and_nothing_is_left(folder, tmp_path):
    with pytest.raises(ModelFolderError, match=r"model\.zip can't be written: .*No such file or directory"):
        pack(folder, tmp_path / "nowhere" / "model.zip")
    (tmp_path / "full").mkdir()
    with pytest.raises(ModelFolderError, match="full can't be written"):  # a folder has its name
        pack(folder, tmp_path / "full")
    assert not list(tmp_path.glob(".*"))
