"""Corrected rows of the quarantine, judged as the landing zone would judge them, and landed only if all are acceptable."""

import contextlib
import datetime as dt
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import functions as F

from pdm_assets.resources.lake import Lake
from pdm_assets.resources.landed_columns import LandingError, date_in_name, match_columns
from pdm_assets.resources.landed_values import csv_line, split
from pdm_assets.resources.landing import LandingZone, appear, folder_of, place_of
from pdm_assets.resources.quarantine import LINK, Quarantine, Release, printable, release_of, releases, unguarded
from pdm_assets.resources.staging import LandedFile, Staging, locked
from pdm_assets.schemas.raw import MACHINES
from pdm_assets.schemas.table import DATE, Table
from pdm_assets.transforms.ingest import SUPERSEDED, raw_rows, sort_landed_rows

PROBLEMS_NAMED = 20


class ReleaseError(ValueError):
    """Corrected rows that can't be let in; the text says of each line why."""


@dataclass(frozen=True)
class _Row:
    """A line of the corrected file: the quarantined row that it is for, and what would land."""

    number: int
    link: tuple[str, int]
    text: str


@dataclass(frozen=True)
class Released:
    """What a release did."""

    landed: tuple[Path, ...]
    rows: int
    duplicates: int  # of these rows: raw has them already, with the same values
    before: int  # lines passed over, for they were released before


def release(zone: LandingZone, lake: Lake, table: Table, corrected: Path, by: str, now: dt.datetime) -> Released:
    """Land the corrected rows of a file that `quarantine.write_csv` wrote, all of them or none.

    A quarantined row is released once: a line that was released before is passed over. The rest must be acceptable,
    and may not replace a row that raw has with other values: that is what a file landed by hand does.

    Raises:
        ReleaseError: if a line can't be let in. Nothing has landed then.
        LandingError: if the file has other columns or can't be read.
        LakeGone: if the lake is.
    """
    lake.must_be_there()
    folder = folder_of(table, zone.landing_root)
    columns, rows, problems = _read(corrected, table)
    with locked(zone.landing_root), contextlib.ExitStack() as leftovers:
        quarantined = Quarantine(lake, zone.landing_root, table).texts(row.link for row in rows)
        problems |= _bad_links(rows, quarantined)
        known, texts = releases(folder), {link: min(found) for link, found in quarantined.items()}
        earlier = {row.link: release_of(known, row.link, texts[row.link]) for row in rows if row.link in texts}
        for row in rows:
            if (before := earlier.get(row.link)) and before.rows[row.link] != row.text:
                problems[row.number] = f"{before.words} with other values; land what changes them as a file of its own"
        fresh = [row for row in rows if not earlier.get(row.link)]
        copies, duplicates = [], 0
        for since, group in _by_list(fresh, table).items() if not problems else ():
            name = f"released-{now:%Y%m%dT%H%M%SZ}{f'-{since}' if since else ''}.csv"
            copy = folder / f".{name}.landing"
            leftovers.callback(copy.unlink, missing_ok=True)
            copy.write_text("".join(f"{line}\n" for line in (columns, *(row.text for row in group))), newline="")
            final, is_there = place_of(copy, name)
            assert not is_there  # each of its rows would have been released before
            said, doubles = _judge(zone, lake, table, copy, final.name, now)
            problems |= {group[line - 2].number: text for line, text in said.items()}
            duplicates += doubles
            copies.append((copy, final, group))
        if problems:
            raise ReleaseError(_words(corrected, problems))
        for copy, final, group in copies:
            # The record first: one without its file says nothing, a file without its record could be released again.
            landed = {row.link: row.text for row in group}
            Release(final.name, now, by, landed, {link: texts[link] for link in landed}).write(final)
            appear(copy, final)
    return Released(tuple(final for _, final, _ in copies), len(fresh), duplicates, len(rows) - len(fresh))


def _words(corrected: Path, problems: dict[int, str]) -> str:
    said = [printable(f"line {number}: {problems[number]}") for number in sorted(problems)]
    more = [f"and {len(said) - PROBLEMS_NAMED} lines more"] if len(said) > PROBLEMS_NAMED else []
    return "\n".join([f"{corrected}: nothing was released. Correct or delete these lines:", *said[:PROBLEMS_NAMED], *more])


def _read(corrected: Path, table: Table) -> tuple[str, list[_Row], dict[int, str]]:
    """The header of what would land, the lines, and what is wrong with those that can't be cut up."""
    try:
        lines = corrected.read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise LandingError(f"{corrected}: is no UTF-8 text: {error}. Save it as CSV UTF-8") from error
    names = [name.strip() for name in split(lines[0].removesuffix("\r"))]
    while names and not names[-1]:  # a spreadsheet fills up to its longest row
        names.pop()
    if missing := [name for name in LINK[:2] if names.count(name) != 1]:
        raise LandingError(
            f"{corrected}: has no column {' and '.join(missing)}, so nobody knows which quarantined rows it corrects: "
            "take the file that `pdm-assets quarantine show --csv` writes"
        )
    places = [place for place, name in enumerate(names) if name not in LINK]
    match_columns(corrected, [names[place] for place in places], table)
    rows, problems = [], {}
    for number, line in enumerate(lines[1:], start=2):
        fields = [unguarded(field) for field in split(line.removesuffix("\r"))]
        if not any(field.strip() for field in fields):
            continue
        if len(fields) < len(names) or any(field.strip() for field in fields[len(names) :]):
            problems[number] = f"{len(fields)} fields where {len(names)} are expected"
            continue
        file, at = (fields[names.index(name)] for name in LINK[:2])
        rows.append(_Row(number, (file, int(at) if at.isdecimal() else 0), csv_line([fields[place] for place in places])))
    return csv_line([names[place] for place in places]), rows, problems


def _bad_links(rows: Sequence[_Row], quarantined: Mapping[tuple[str, int], set[str]]) -> dict[int, str]:
    problems: dict[int, str] = {}
    first: dict[tuple[str, int], int] = {}
    for row in rows:
        file, line = row.link
        if row.link not in quarantined:
            problems[row.number] = f"{file}, line {line} is not in quarantine"
        elif len(quarantined[row.link]) > 1:
            problems[row.number] = (
                f"{file}, line {line} is two rows in quarantine, for the file was replaced: materialize the days of both, "
                "then take what `pdm-assets quarantine show --csv` writes"
            )
        elif first.setdefault(row.link, row.number) != row.number:
            problems[row.number] = f"{file}, line {line} is corrected in line {first[row.link]} too"
    return problems


def _by_list(rows: Sequence[_Row], table: Table) -> dict[dt.date | None, list[_Row]]:
    """The rows of each file to land: a corrected row of a fleet list must hold from that list's day on."""
    groups: dict[dt.date | None, list[_Row]] = {}
    for row in rows:
        groups.setdefault(date_in_name(row.link[0]) if table == MACHINES else None, []).append(row)
    return groups


def _judge(zone: LandingZone, lake: Lake, table: Table, copy: Path, name: str, now: dt.datetime) -> tuple[dict[int, str], int]:
    """What is wrong with the lines of a file that would land under a name, and how many of its rows raw has already."""
    tomorrow = now.date() + dt.timedelta(days=1)
    zone.staging_root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="release-", dir=zone.staging_root) as folder:
        path = Path(shutil.copyfile(copy, Path(folder) / name))
        (staged,) = Staging(Path(folder), table).of([LandedFile.at(path)])
        look = zone.look(table.key, staged)
        if staged.refusal:
            raise LandingError(staged.refusal)
        days = {max(day, zone.first_day) for day in staged.rows_by_day or {}}
        if table == MACHINES:
            days = {max(date_in_name(name) or zone.first_day, zone.first_day)}
        elif max(days) > tomorrow:
            rows = pa.concat_tables([pq.read_table(part.path, columns=["line", DATE]) for part in staged.parts]).to_pylist()
            return {row["line"]: f"it is of {row[DATE]}, a day to come" for row in rows if row[DATE] > tomorrow}, 0
        spark, start, end = lake.spark.spark_session, min(days), max(days) + dt.timedelta(days=1)
        fleet = None
        if table != MACHINES:
            lists = sort_landed_rows(zone.look(MACHINES.key).scan(spark, start, end), MACHINES)
            fleet = raw_rows(lists, MACHINES).select(DATE, "machine_id")
        landed = look.scan(spark, start, end).where(F.col(DATE).isin(list(days)))
        judged = sort_landed_rows(landed, table, fleet)
        mine, key = F.col("landed_rank") == F.lit(len(look.files) - 1), [DATE, *table.unique]
        wanted = judged.select(*key, "file", "line", "verdict", "reason", mine.alias("is_mine"), "landed_rank")
        # by Arrow, whose times are UTC: collect() gives those of this machine's zone, where an hour comes twice in autumn
        my_rows = wanted.where(F.col("is_mine")).toArrow().to_pylist()
        if len(my_rows) != staged.rows:
            raise ReleaseError(f"{len(my_rows)} of {staged.rows} rows would count: their list is in force on no day")
        others = wanted.where(~F.col("is_mine") & F.col("reason").isNull())
        same_keys = others.join(wanted.where(F.col("is_mine")).select(*key).distinct(), on=key, how="left_semi")
        same = same_keys.orderBy("landed_rank", "line").toArrow().to_pylist()
        in_raw = {tuple(row[n] for n in key): row for row in same}
    problems = {row["line"]: row["reason"] for row in my_rows if row["reason"]}
    duplicates = 0
    for row in my_rows:
        present = in_raw.get(tuple(row[n] for n in key))
        if present is None or row["reason"]:
            continue
        if present["verdict"] == SUPERSEDED:  # by this file, which would be the last to land
            problems[row["line"]] = (
                f"raw has other values for its key, from {present['file']}, line {present['line']}; if these are wrong, "
                "land the right ones as a file of its own"
            )
        else:
            duplicates += 1
    return problems, duplicates
