"""Whatever bytes land, stand in a cursor or come as an archive: an answer, never an exception that is not documented.

`make test-long` tries many more.
"""

import gzip
import io
import json
import os
import shutil
import uuid
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pdm_assets.automation.landing_sensor import CURSOR_VERSION
from pdm_assets.resources.model_folder import ModelFolderError, check, pack, seal, unpack
from pdm_assets.resources.staging import LandedFile, Staging
from pdm_assets.schemas.raw import ERRORS, MACHINES, TELEMETRY
from pdm_assets_tests.automation.test_landing_sensor import JANUARY, Plant
from pdm_assets_tests.builders import utc
from pdm_assets_tests.plant import HEADERS

FEW = pytest.mark.parametrize("examples", [40, pytest.param(2_000, marks=pytest.mark.long)])
TABLES = st.sampled_from([TELEMETRY, ERRORS, MACHINES])


def held(examples, *strategies):
    """Try a property on so many examples; the fixtures of the test around it are shared by them."""

    def run(rule):
        settings(max_examples=examples, suppress_health_check=list(HealthCheck))(given(*strategies)(rule))()

    return run


# rows of what is right, nearly right and anything
words = st.sampled_from(
    [
        "2015-01-01 06:00:00",
        "1/1/2015 6:00:00 AM",
        "2015-01-01T06:00Z",
        "0001-01-01",
        "9999-12-31 23:59:59",
        "1",
        "170.5",
        "-0",
        "1e308",
        "1e999",
        "nan",
        "inf",
        "0x1p3",
        "9223372036854775808",
        "error1",
        "model3",
        "",
        " ",
        '"',
        '""',
        '"a,b"',
        "'",
        "\x00",
        "\ufeff",
        "\ufffd",
        "=1+1",
        "\u0661",
        "NULL",
        "\r",
        "\x0b",
        "\u2028",
    ]
)
rows = st.lists(st.lists(words | st.text(max_size=5), min_size=1, max_size=7).map(",".join), max_size=12)
line_ends = st.sampled_from(["\n", "\r\n", "\n\n", "\r"])


@st.composite
def spoilt(draw, content: bytes) -> bytes:
    """Some bytes, cut and with a few changed."""
    changed = bytearray(content)
    for at, byte in draw(st.lists(st.tuples(st.integers(0, len(content)), st.integers(0, 255)), max_size=5)):
        changed[at : at + 1] = bytes([byte])
    return bytes(changed[: draw(st.just(None) | st.integers(0, len(changed)))])


@st.composite
def csv_files(draw, name: str) -> bytes:
    end = draw(line_ends)
    return end.join([HEADERS[name], *draw(rows)]).encode("utf-8", errors="replace")


def parquet_file(rows: int) -> bytes:
    values = {"datetime": pa.array([utc("2015-01-01 06:00")] * rows, pa.timestamp("us")), "machineID": [1] * rows}
    out = io.BytesIO()
    pq.write_table(pa.table(values | {name: [1.0] * rows for name in ("volt", "rotate", "pressure", "vibration")}), out)
    return out.getvalue()


def take(root: Path, table, suffix: str, content: bytes):
    """Stage the content as a file; what is in it, and the rows of its parts."""
    path = root / f"{uuid.uuid4().hex}{suffix}"
    path.write_bytes(content)
    (staged,) = Staging(root / f"{path.name}.staging", table).of([LandedFile.at(path)])
    assert isinstance(staged.refusal, str) == (staged.rows_by_day is None or not staged.columns)
    parts = [pq.read_table(part.path) for part in staged.parts]
    assert sum(map(len, parts)) == staged.rows
    lines = sorted(line for part in parts for line in part["line"].to_pylist())
    assert len(set(lines)) == len(lines)
    for part in parts:
        for row in part.to_pylist():
            # a row is whole, or says why not, with its text
            missing = any(row[field.name] is None for field in table.columns)
            assert (row["problem"] is None) == (row["text"] is None)
            assert not (missing and row["problem"] is None)
    path.unlink()
    shutil.rmtree(root / f"{path.name}.staging")
    return staged, lines


@FEW
def test_any_text_under_the_header_becomes_rows_each_on_its_line_or_a_refusal(tmp_path, examples):
    @held(examples, st.sampled_from([TELEMETRY, ERRORS, MACHINES]), st.data())
    def rule(table, data):
        content = data.draw(csv_files(table.name))
        staged, lines = take(tmp_path, table, ".csv", content)
        if staged.refusal is None:
            landed = content.split(b"\n")
            expected = [n for n, line in enumerate(landed, start=1) if n > 1 and line.decode().strip()]
            assert lines == expected
        packed, packed_lines = take(tmp_path, table, ".csv.gz", gzip.compress(content, mtime=0))
        assert (packed.refusal is None, packed_lines) == (staged.refusal is None, lines)


@FEW
def test_any_bytes_become_rows_or_a_refusal(tmp_path, examples):
    packed = gzip.compress((HEADERS["telemetry"] + "\n2015-01-01 06:00:00,1,1,1,1,1\n" * 50).encode(), mtime=0)

    @held(examples, TABLES, st.sampled_from([".csv", ".csv.gz", ".parquet"]), st.binary(max_size=300))
    def anything(table, suffix, content):
        take(tmp_path, table, suffix, content)

    @held(examples, spoilt(packed))
    def damaged_gzip(content):
        take(tmp_path, TELEMETRY, ".csv.gz", content)

    @held(examples, spoilt(parquet_file(3)))
    def damaged_parquet(content):
        take(tmp_path, TELEMETRY, ".parquet", content)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda its: st.lists(its, max_size=3) | st.dictionaries(st.text(max_size=3), its, max_size=3),
    max_leaves=5,
)
cursors = st.fixed_dictionaries(
    {"version": st.just(CURSOR_VERSION)},
    optional={name: anything | st.integers(10**300, 10**301) for name in ("seen", "waiting_since", "requests")},
).map(json.dumps)


@FEW
def test_any_cursor_gets_a_tick(tmp_path, examples):
    plant = Plant(tmp_path)
    plant.telemetry(JANUARY[:2])
    assert plant.tick()

    @held(examples, st.text() | anything.map(json.dumps) | cursors)
    @example("[" * 100_000)
    @example('{"version": 1, "waiting_since": Infinity, "seen": "../../x"}')
    @example(f'{{"version": 1, "requests": {"9" * 4300}}}')
    def rule(cursor):
        plant.cursor = cursor
        data = plant.evaluate()
        assert data.run_requests or data.skip_message
        assert data.cursor is None or json.loads(data.cursor)["version"] == CURSOR_VERSION


METADATA = {"class": "org.apache.spark.ml.feature.ImputerModel", "uid": "a", "paramMap": {}}
names = st.sampled_from(
    ["SHA256SUMS", "card.json", "pipeline/metadata/part-0", "pipeline/metadata", "../x", "/x", "a/../../x", "C:\\x", "\0", "a/"]
) | st.text(min_size=1, max_size=8)


@st.composite
def archives(draw) -> bytes:
    """Zip files of any entries, some with checksums that fit."""
    entries = draw(st.dictionaries(names, st.binary(max_size=40) | anything.map(lambda v: json.dumps(v).encode()), max_size=5))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as packed:
        for name, content in entries.items():
            entry = zipfile.ZipInfo(name.encode("utf-8", errors="replace").decode())
            entry.external_attr = draw(st.sampled_from([0, 0o120777 << 16, 0o040755 << 16]))
            packed.writestr(entry, content)
    return out.getvalue()


@FEW
def test_any_archive_is_a_model_or_refused_and_nothing_gets_out(tmp_path, examples):
    folder = tmp_path / "model"
    (folder / "pipeline" / "metadata").mkdir(parents=True)
    (folder / "pipeline" / "metadata" / "part-0").write_text(json.dumps(METADATA))
    (folder / "card.json").write_text("{}")
    seal(folder)
    pack(folder, tmp_path / "good.zip")
    good = (tmp_path / "good.zip").read_bytes()
    inside = tmp_path / "a" / "b" / "c"
    inside.mkdir(parents=True)
    outside = set(tmp_path.rglob("*"))

    @held(examples, st.binary(max_size=100) | spoilt(good) | archives())
    @example(good)
    def rule(content):
        archive, target = inside / "in.zip", inside / "out"
        archive.write_bytes(content)
        try:
            unpack(archive, target)
            check(target)
            assert not any(path.is_symlink() for path in target.rglob("*"))
            shutil.rmtree(target)
        except ModelFolderError:
            assert not os.path.lexists(target)
        archive.unlink()
        assert set(tmp_path.rglob("*")) == outside
