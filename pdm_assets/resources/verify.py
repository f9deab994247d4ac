"""Is the lake whole? Files, keys, days, balances, versions and models looked at anew, without Spark."""

import datetime as dt
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.exceptions import DeltaError

from pdm_assets.resources.lake import FORMAT, Lake, LakeError
from pdm_assets.resources.landed_table import LandedTable
from pdm_assets.resources.landing import LandingError, LandingZone
from pdm_assets.resources.model_store import ModelStore, NoSuchModel
from pdm_assets.resources.staging import StagedPart
from pdm_assets.resources.upgrade import differences
from pdm_assets.resources.versions import NamedVersions, named_versions, unreadable
from pdm_assets.schemas.features import COMPONENT_FAILURES, COMPONENT_RISK, DECISIONS, FAILURE_MODEL, OBSERVATIONS, REGISTRY
from pdm_assets.schemas.raw import MACHINES, MAINTENANCE, RAW_TABLES, TELEMETRY, quarantine_of
from pdm_assets.schemas.table import DATE, Table
from pdm_assets.schemas.tables import TABLES
from pdm_assets.transforms.features import observation_hours

NAMED = 5  # days, files and versions that a finding names
UNREADABLE = (DeltaError, OSError, pa.ArrowException)
DAY = dt.timedelta(days=1)
TIMED = {table.key for table in (*RAW_TABLES, OBSERVATIONS, COMPONENT_FAILURES, COMPONENT_RISK) if table != MACHINES}
RESTORE_FILES = "put them back from a backup, or `pdm-assets lake restore` the table to a version that is whole"

Days = Mapping[dt.date | None, "Day"]


@dataclass(frozen=True)
class Finding:
    """Something a person should know: wrong, or only waiting to be done."""

    where: str
    what: str
    todo: str
    is_wrong: bool = True


@dataclass
class Day:
    """What the files of a day hold; of a table without days, all of them."""

    rows: int = 0  # as the log counts them
    missing: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    duplicates: int = 0
    misplaced: int = 0
    is_observable: bool = False  # telemetry: some machine was heard in the hour before an observation


@dataclass(frozen=True)
class Verifier:
    """The lake, what belongs to it, and what a person may narrow the look to."""

    store: ModelStore
    zone: LandingZone
    cadence_hours: int
    keep_model_data_days: int | None
    now: dt.datetime
    made_from: Mapping[str, Collection[str]]  # keys of tables by key

    @property
    def lake(self) -> Lake:
        """Whose tables are looked at."""
        return self.store.lake

    def findings(self, tables: Sequence[Table]) -> Iterator[Finding]:
        """What is to be said of the tables; of coverage and models if all of them are asked for.

        Raises:
            LakeError: if the tables are not in a local lake.
        """
        if self.lake.catalog or "://" in self.lake.root:
            raise LakeError("lake verify reads a local lake: these tables are in a catalog or an object store")
        seen: dict[str, Days] = {}
        named: NamedVersions = {}
        try:
            named = named_versions(self.store, self.keep_model_data_days, self.now)
        except UNREADABLE as error:
            yield Finding(
                REGISTRY.key, f"it can't be read, so what models name is not known: {first_line(str(error))}", RESTORE_FILES
            )
        for table in tables:
            yield from self._table(table, seen)
            yield from self._versions(table, named.get(table.key, {}))
        for table in RAW_TABLES:
            if {table.key, quarantine_of(table).key} <= seen.keys():
                try:
                    look = self.zone.look(table.key)
                except LandingError as error:
                    what, _, todo = str(error).partition(": ")
                    yield Finding(table.key, what, todo)
                    continue
                yield from self._balance(look, seen[table.key], seen[quarantine_of(table).key])
        if {table.key for table in self.lake.tables()} <= {table.key for table in tables}:
            yield from self._absent(named)
            yield from _coverage(seen, self.lake)
            yield from self._models()

    def _table(self, table: Table, seen: dict[str, Days]) -> Iterator[Finding]:
        try:
            stored = self.lake.format_of(table)
            delta = self.lake.delta(table)
            actions = delta.get_add_actions(flatten=True)
        except UNREADABLE as error:
            yield Finding(
                table.key, f"its log can't be read: {first_line(str(error))}", "put the table's _delta_log back from a backup"
            )
            return
        if stored != FORMAT:
            what = f"it is stored in format {stored}, this release writes {FORMAT}"
            yield Finding(table.key, what, "`pdm-assets lake upgrade`" if stored < FORMAT else "install the later release")
        elif unlike := differences(self.lake, table):
            yield Finding(
                table.key, "; ".join(unlike), "it was changed by hand: change it back, or restore a version from before"
            )
        files: dict[dt.date | None, list[tuple[str, int, int]]] = defaultdict(list)
        days = actions.column(f"partition.{DATE}").to_pylist() if table.daily else [None] * actions.num_rows
        columns = (actions.column(name).to_pylist() for name in ("path", "size_bytes", "num_records"))
        for day, *file in zip(days, *columns, strict=True):
            files[day].append((unquote(file[0]), file[1], file[2]))
        root = Path(unquote(delta.table_uri).removeprefix("file://"))
        with ThreadPoolExecutor() as pool:
            looked = pool.map(lambda day: self._day(table, root, day, files[day]), files)
            seen[table.key] = dict(zip(files, looked, strict=True))
        yield from _data(table, seen[table.key])

    def _absent(self, named: NamedVersions) -> Iterator[Finding]:
        """Tables that are not there and should be: their files are, what was made from them, or what they are made from."""
        there = {table.key for table in self.lake.tables()}
        landed = self._landed() if there or self.lake.was_begun else {}
        for table in (table for table in TABLES.values() if table.key not in there):
            folder = Path(self.lake.location(table))
            made = sorted(key for key in there if table.key in self.made_from.get(key, ()))
            made += sorted({f"model {each}" for models in named.get(table.key, {}).values() for each in models})
            if folder.is_dir() and any(folder.iterdir()):
                what = "its folder holds files, but no log that says which of them are the table"
                yield Finding(table.key, what, "put the table's _delta_log back from a backup")
            elif made or landed.get(table.key):
                why = f"these were made from it: {few(made)}" if made else f"{landed[table.key]} files of it landed"
                todo = f"put its folder back from a backup, or materialize {table.key} of all days"
                yield Finding(table.key, f"it is not there, although {why}", todo)

    def _landed(self) -> dict[str, int]:
        """Files, by the tables that have rows of them: a raw table and its quarantine."""
        found = {}
        for table in RAW_TABLES:
            try:
                staged, waiting = self.zone.known(table.key)
            except LandingError:  # said with its balance
                continue
            found[table.key] = found[quarantine_of(table).key] = sum(1 for file in staged if file.rows) + len(waiting)
        return found

    def _versions(self, table: Table, named: Mapping[int, Sequence[str]]) -> Iterator[Finding]:
        for version, models in sorted(named.items()):
            if why := unreadable(self.lake, table, version):
                what = f"version {version}, which model {few(models)} was made from, can't be read: {why}"
                todo = "put its files back from a backup; the model scores without, but what it learnt from is lost"
                yield Finding(table.key, what, todo)

    def _day(self, table: Table, root: Path, day: dt.date | None, files: list[tuple[str, int, int]]) -> Day:
        """Read all of a day's files: pages that Spark wrote have a checksum, which finds what a disk changed."""
        found, parts = Day(), []
        for name, size, rows in files:
            found.rows += rows
            path = root / name
            try:
                if path.stat().st_size != size:
                    found.damaged.append(f"{name} has {path.stat().st_size} bytes, not {size}")
                    continue
                file = pq.ParquetFile(path, page_checksum_verification=True, coerce_int96_timestamp_unit="us")
                part = file.read(use_threads=False)
            except FileNotFoundError:
                found.missing.append(name)
                continue
            except UNREADABLE as error:
                found.damaged.append(f"{name}: {first_line(str(error))}")
                continue
            if part.num_rows != rows:
                found.damaged.append(f"{name} has {part.num_rows} rows, not {rows}")
            parts.append(part)
        if parts:
            whole = pa.concat_tables(parts, promote_options="default")
            if table.unique:
                found.duplicates = whole.num_rows - _distinct(whole, table.unique)
            if table.key in TIMED and day is not None:
                found.misplaced = self._misplaced(table, day, whole)
            if table == TELEMETRY:
                found.is_observable = self._is_observable(whole)
        return found

    def _misplaced(self, table: Table, day: dt.date, rows: pa.Table) -> int:
        dates = rows[_time_column(table)].cast(pa.timestamp("us")).cast(pa.date32())
        if table == COMPONENT_FAILURES:  # kept by the day on which the outcome was known
            ahead = -(-(pc.max(rows["horizon_hours"]).as_py() or 0) // 24)
            day -= dt.timedelta(days=ahead)
        is_elsewhere = pc.not_equal(dates, pa.scalar(day, pa.date32()))
        if table == MAINTENANCE and day == self.zone.first_day:  # history that the plant brought along
            is_elsewhere = pc.and_(is_elsewhere, pc.greater(dates, pa.scalar(day, pa.date32())))
        return pc.sum(is_elsewhere.cast(pa.int64())).as_py() or 0

    def _is_observable(self, telemetry: pa.Table) -> bool:
        hour = 3_600_000_000
        micros = telemetry["observed_at"].cast(pa.timestamp("us")).cast(pa.int64())
        ends = {-(-(each % (24 * hour)) // hour) for each in pc.unique(micros).to_pylist()}
        return bool(ends & set(observation_hours(self.cadence_hours)))

    def _balance(self, look: LandedTable, raw: Days, quarantine: Days) -> Iterator[Finding]:
        """Landed = raw + quarantined + duplicates + superseded. The last two are not stored: keys tell them from lost rows."""
        table = look.table
        for file in look.refused:
            todo = "land it corrected, delete the refused file"
            yield Finding(table.key, f"a landed file was refused: {file.refusal}", todo, is_wrong=False)
        days = [day for day in (*raw, *quarantine) if day]
        # A fleet list holds for ever: it asks for the days that others ask for.
        last = max([*days, self.zone.first_day] if table == MACHINES else [*days, self.now.date()])
        landed = look.rows(self.zone.first_day, last + DAY)
        written = self.lake.written_at(table, self.zone.first_day, last + DAY)
        created = dt.datetime.fromtimestamp((self.lake.delta(table).metadata().created_time or 0) / 1000, dt.UTC)
        newest = max(written.values(), default=created)
        arrived: dict[dt.date, float] = defaultdict(float)
        for file in look.files:
            for day in file.rows_by_day or ():
                day = max(day, self.zone.first_day)  # noqa: PLW2901
                arrived[day] = max(arrived[day], file.mtime_ns / 1e9)
        waiting, untaken, too_many, odd = [], [], [], []
        for day in sorted({*landed, *days}):
            held = sum(table_days[day].rows for table_days in (raw, quarantine) if day in table_days)
            since = written.get(day, newest)
            if landed.get(day, 0) > held and arrived[day] > since.timestamp():
                waiting.append(day)
            elif landed.get(day, 0) > held == 0:
                untaken.append(day)
            elif landed.get(day, 0) < held:
                too_many.append(day)
            elif landed[day] > held and table != MACHINES:
                odd.append(day)
        if waiting:
            todo = "the landing sensor takes them; is it on? Or materialize these days"
            yield Finding(table.key, f"files landed since {few(waiting)} was written", todo, is_wrong=False)
        again = f"materialize {table.key} of these days"
        if untaken:
            what = f"rows landed for {few(untaken)}, but neither {table.key} nor its quarantine holds any"
            yield Finding(table.key, what, again)
        if too_many:
            what = f"{few(too_many)} hold more rows than landed: files are gone from landing/{table.name}, or were replaced"
            yield Finding(table.key, what, f"put the files back; {again} only if the rows are to go too")
        if odd:
            yield from self._lost(look, odd, {day: quarantine[day].rows for day in odd if day in quarantine})

    def _lost(self, look: LandedTable, days: list[dt.date], quarantined: Mapping[dt.date, int]) -> Iterator[Finding]:
        """A landed row whose key is not in raw must be in quarantine, and a raw row's key must have landed."""
        table, first = look.table, self.zone.first_day
        key = [*table.unique, DATE]
        parts = {part.path for file in look.files for part in file.parts if any(_holds(part, day, first) for day in days)}
        landed = pa.concat_tables(pq.read_table(path, columns=[*key, "problem"]) for path in sorted(parts))
        if table != MAINTENANCE:  # too early is a problem, which only the scan says
            landed = landed.filter(pc.or_kleene(pc.is_valid(landed["problem"]), pc.greater_equal(landed[DATE], first)))
        dates = pc.max_element_wise(landed[DATE], pa.scalar(first, pa.date32()))
        landed = _comparable(landed.set_column(landed.schema.get_field_index(DATE), DATE, dates), table)
        landed = landed.filter(pc.is_in(landed[DATE], pa.array(days, pa.date32())))
        stored = self.lake.arrow(table, min(days), max(days) + DAY).to_table(columns=key)
        stored = _comparable(stored.filter(pc.is_in(stored[DATE], pa.array(days, pa.date32()))), table)
        good = landed.filter(pc.is_null(landed["problem"])).select(key)
        homeless = _by_day(good.join(stored, key, join_type="left anti"))
        refused = _by_day(landed.filter(pc.is_valid(landed["problem"])))
        lost = [day for day in days if homeless.get(day, 0) + refused.get(day, 0) > quarantined.get(day, 0)]
        strangers = sorted(_by_day(stored.join(good, key, join_type="left anti")))
        if lost:
            what = f"landed rows of {few(lost)} are neither in {table.key} nor in its quarantine"
            yield Finding(table.key, what, f"materialize {table.key} of these days: it takes them from landing/ again")
        if strangers:
            what = f"{few(strangers)} hold rows that no landed file has: written by hand, restored, or the files changed"
            yield Finding(table.key, what, f"materialize {table.key} of these days, or put the files back")

    def _models(self) -> Iterator[Finding]:
        try:
            registered, decisions = self.store.registered(), self.store.decisions()
        except UNREADABLE as error:
            yield Finding("models", f"registry or decisions can't be read: {first_line(str(error))}", RESTORE_FILES)
            return
        for model in registered:
            try:
                self.store.whole(model.version)
            except NoSuchModel as error:
                what, _, todo = str(error).partition(". ")
                yield Finding(f"model {model.version}", what, todo)
        known = {model.version for model in registered}
        for version in sorted({decision.version for decision in decisions if decision.is_promoted} - known):
            what = f"{DECISIONS.key} promotes it, but {REGISTRY.key} does not know it"
            yield Finding(f"model {version}", what, "restore both tables to one time, or promote a registered version")


def _data(table: Table, days: Days) -> Iterator[Finding]:
    if missing := [name for day in days.values() for name in day.missing]:
        yield Finding(table.key, f"{len(missing)} files are missing: {few(missing)}", RESTORE_FILES)
    if damaged := [said for day in days.values() for said in day.damaged]:
        yield Finding(table.key, f"{len(damaged)} files are damaged: {few(damaged)}", RESTORE_FILES)
    again = f"materialize {table.key} of these days"
    if twice := [str(day) for day, found in days.items() if found.duplicates]:
        rows = sum(found.duplicates for found in days.values())
        what = f"{rows} rows have the key ({', '.join(table.unique)}) of another" + (f" on {few(twice)}" if table.daily else "")
        yield Finding(table.key, what, again if table.daily else "restore a version from before they came")
    if elsewhere := [day for day, found in days.items() if found.misplaced]:
        yield Finding(table.key, f"rows of other days are kept under {few(elsewhere)}", again)


def _coverage(seen: Mapping[str, Days], lake: Lake) -> Iterator[Finding]:
    """Between the first and the last day of a table, each day has what the tables that it is made from give rise to."""
    held = {key: {day for day, found in days.items() if day and found.rows} for key, days in seen.items()}
    telemetry, observed = held.get(TELEMETRY.key, set()), held.get(OBSERVATIONS.key, set())
    heard = {day for day in telemetry if seen[TELEMETRY.key][day].is_observable}
    labels, scores = held.get(COMPONENT_FAILURES.key, set()), held.get(COMPONENT_RISK.key, set())
    models: set[dt.date] = held.get(FAILURE_MODEL.key, set())
    in_force = {row[DATE] for row in lake.rows(FAILURE_MODEL) if row["model_version"]} if models else set()
    for table, expected, has, why in (
        (MACHINES, telemetry, held.get(MACHINES.key, set()), "there is telemetry"),
        (OBSERVATIONS, heard, observed, "there is telemetry"),
        (COMPONENT_FAILURES, _span(labels) & telemetry, labels, "the day is over"),
        (FAILURE_MODEL, observed, models, "there are features"),
        (COMPONENT_RISK, observed & in_force, scores, "there are features and a model"),
    ):
        if gaps := sorted(day for day in expected - has if day in _span(has)):
            yield Finding(table.key, f"{few(gaps)} are empty, although {why}", f"materialize {table.key} of these days")
    for table in (REGISTRY, DECISIONS) if in_force else ():
        if not lake.exists(table):
            what = f"it is not there, although {FAILURE_MODEL.key} names models"
            yield Finding(table.key, what, "put its folder back from a backup")


def _span(days: set[dt.date]) -> set[dt.date]:
    if not days:
        return set()
    first = min(days)
    return {first + dt.timedelta(days=n) for n in range((max(days) - first).days + 1)}


def _time_column(table: Table) -> str:
    return next(f.name for f in table.columns if f.name in table.unique and f.dataType.typeName() == "timestamp")


def _distinct(rows: pa.Table, names: Sequence[str]) -> int:
    return rows.group_by(list(names), use_threads=False).aggregate([]).num_rows


def _comparable(rows: pa.Table, table: Table) -> pa.Table:
    name = _time_column(table)
    return rows.set_column(rows.schema.get_field_index(name), name, rows[name].cast(pa.timestamp("us")))


def _by_day(rows: pa.Table) -> dict[dt.date, int]:
    counted = rows.group_by(DATE).aggregate([([], "count_all")])
    return dict(zip(counted[DATE].to_pylist(), counted["count_all"].to_pylist(), strict=True))


def _holds(part: StagedPart, day: dt.date, first: dt.date) -> bool:
    return max(part.first_day, first) <= day <= max(part.last_day, first)


def first_line(text: str) -> str:
    """The first line of a text, such as an error's: what follows is for those who mend the code."""
    return text.strip().split("\n", 1)[0]


def few(things: Sequence[object]) -> str:
    """The first few of things, and how many more there are."""
    more = f" and {len(things) - NAMED} more" if len(things) > NAMED else ""
    return ", ".join(map(str, things[:NAMED])) + more


def tables_at(lake: Lake, name: str | None) -> list[Table]:
    """The stored tables, or the one of a name.

    Raises:
        LakeError: if there is none of that name, or the lake is gone.
    """
    lake.must_be_there()
    stored = lake.tables()
    chosen = [table for table in stored if name in (None, table.key)]
    if name is not None and not chosen:
        raise LakeError(f"no table {name!r}. Tables: {', '.join(table.key for table in stored) or 'none'}")
    return chosen
