"""The command `pdm-assets`: simulate a fleet, land files, replay days, look after models, run the demo."""

import datetime as dt
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from pdm_assets import kafka_command, upkeep_commands
from pdm_assets.cli_common import settings as _settings
from pdm_assets.cli_common import user as _user

if TYPE_CHECKING:
    from pdm_assets.models.card import ModelCard
    from pdm_assets.resources.lake import Lake
    from pdm_assets.resources.model_store import ModelStore
    from pdm_assets.schemas.table import Table


def _day(_context: click.Context, _parameter: click.Parameter, text: str | None) -> dt.date | None:
    try:
        return None if text is None else dt.date.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no day: write YYYY-MM-DD") from error


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
def main() -> None:
    """Predictive maintenance: from landed files to component risks."""


main.add_command(upkeep_commands.health)
main.add_command(kafka_command.kafka)
main.add_command(upkeep_commands.lake)
main.add_command(upkeep_commands.backup)
main.add_command(upkeep_commands.restore_backup)


@main.command()
@click.option("--machines", default=100, show_default=True, type=click.IntRange(1), help="machines of the fleet")
@click.option("--days", default=365, show_default=True, type=click.IntRange(1), help="days of telemetry")
@click.option("--end", callback=_day, default=None, help="day after the last, YYYY-MM-DD  [default: today]")
@click.option("--seed", default=1, show_default=True, help="another seed, another fleet")
@click.option(
    "--first-machine-id",
    default=1,
    show_default=True,
    type=click.IntRange(1),
    help="number of the first machine",
)
@click.option(
    "--harder",
    is_flag=True,
    help="ramps, failures at any hour and missing errors instead of the data set's artefacts",
)
@click.option(
    "--shift", callback=_day, default=None, help="day from which on pressure has a higher level and comp1 fails in a new way"
)
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="folder for the five files")
def simulate(
    machines: int,
    days: int,
    end: dt.date | None,
    seed: int,
    first_machine_id: int,
    harder: bool,
    shift: dt.date | None,
    out: Path,
) -> None:
    """Write the five files of a simulated fleet."""
    from rich.progress import Progress

    from pdm_assets.simulator.writer import simulate as write_fleet

    end_at = dt.datetime.combine(end or dt.datetime.now(dt.UTC).date(), dt.time(), dt.UTC)
    with Progress(transient=not sys.stderr.isatty()) as progress:
        bar = progress.add_task(f"simulating {machines} machines x {days} days", total=machines)
        write_fleet(
            out,
            machines=machines,
            days=days,
            end=end_at,
            seed=seed,
            first_machine_id=first_machine_id,
            harder=harder,
            shift=shift,
            progress=lambda done: progress.advance(bar, done),
        )
    click.echo(f"{out}: telemetry.csv errors.csv maint.csv failures.csv machines.csv")


@main.command()
@click.argument("folder", type=click.Path(path_type=Path))
def land(folder: Path) -> None:
    """Put the five files of FOLDER into the landing zone, under any of their usual names.

    These are telemetry.csv, errors.csv, maint.csv, failures.csv and machines.csv, also with PdM_ in front, with a date behind,
    and as .csv.gz or .parquet.
    """
    from pdm_assets.resources.landed_columns import format_of, shown, table_of
    from pdm_assets.resources.landing import LandingError
    from pdm_assets.resources.landing import land as land_files

    root = _settings().landing_root
    try:
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if format_of(path.name) and not path.name.startswith((".", "_")) and not table_of(path.name):
                click.echo(f"not taken, its name is none of the usual: {shown(path)}")
        landed = land_files(folder, root)
    except LandingError as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(
            f"could not land below {root}: {error}. See to it, or to PDM_DATA, and run it again: what has landed is left "
            "as it is"
        ) from error
    for path in landed:
        click.echo(f"landed {path}")
    if not landed:
        click.echo("nothing new: these files have landed before")


@main.command()
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--from", "first", callback=_day, required=True, help="first day to land, YYYY-MM-DD")
@click.option("--to", "last", callback=_day, required=True, help="last day to land, YYYY-MM-DD, included")
@click.option("--every", default=20.0, show_default=True, help="seconds between two days")
def replay(folder: Path, first: dt.date, last: dt.date, every: float) -> None:
    """Land FOLDER's list of machines, then the days of its files one by one, as a plant would send them.

    What is older than the first day stays out, replacements too: `land` takes a whole history.
    """
    import time

    from pdm_assets.simulator.replay import Replayer

    replayer = Replayer(folder, _settings().landing_root, first)
    for path in replayer.land_machines():
        click.echo(f"landed {path}")
    day = first
    while day <= last:
        files = replayer.land_day(day)
        click.echo(f"{day}: {len(files)} files landed")
        day += dt.timedelta(days=1)
        if day <= last:
            time.sleep(every)


@main.group()
def models() -> None:
    """The trained models: which there are, what was decided on them, and which is in force."""


def _store() -> "ModelStore":
    from pdm_assets.resources.model_store import ModelStore

    return ModelStore.of(_settings(), _lake())


def _lake() -> "Lake":
    from pdm_assets.resources.lake import Lake
    from pdm_assets.resources.spark import SparkEngine

    settings = _settings()
    return Lake.of(settings, SparkEngine.of(settings))


def _today() -> dt.date:
    return dt.datetime.now(dt.UTC).date()


@contextmanager
def _said_plainly() -> Iterator[None]:
    from pdm_assets.engine.spark import SparkUnavailable
    from pdm_assets.resources.hold import LakeHeld
    from pdm_assets.resources.lake import LakeError
    from pdm_assets.resources.model_folder import ModelFolderError
    from pdm_assets.resources.model_store import NoSuchModel
    from pdm_assets.resources.object_store import StoreError

    try:
        yield
    except (NoSuchModel, ModelFolderError, SparkUnavailable, LakeError, LakeHeld, StoreError) as error:
        raise click.ClickException(str(error)) from error


@models.command("list")
def list_models() -> None:
    """Every version, the newest knowledge last; * is in force today."""
    store = _store()
    known, decisions = store.registered(), store.decisions()
    now = store.in_force(_today(), known, decisions)
    for model in known:
        said = [decision for decision in decisions if decision.version == model.version]
        words = said[-1].words if said else "not decided on"
        click.echo(f"{'*' if model == now else ' '} {model.version}  knows the days before {model.cutoff}  {words}")
    if not known:
        click.echo("no model is registered: materialize models/failure_model")
    elif now is None:
        click.echo(f"none is in force on {_today()} for a horizon of {store.horizon_hours} h")


@models.command()
@click.argument("version")
def show(version: str) -> None:
    """What a version was made from, how it does in its test window beside the baselines, and what was decided on it."""
    from pdm_assets.models.reports import baselines

    store = _store()
    with _said_plainly():
        card = store.card(version)
    click.echo(f"{card.version}: {card.model_type}, {card.horizon_hours} h ahead, code {card.code_version}")
    for name, counts in card.windows.items():
        failing = ", ".join(f"{component} {rows}" for component, rows in counts.positives.items())
        click.echo(
            f"{name}: days {counts.window.start} to before {counts.window.end}, {counts.rows} observations, failing {failing}"
        )
    click.echo("parameters: " + ", ".join(f"{name}={value}" for name, value in card.parameters.items()))
    click.echo("data: " + ", ".join(f"{table}@{number}" for table, number in card.data_versions.items()))
    for note in card.notes:
        click.echo(f"note: {note}")
    click.echo(f"\n{baselines(card).markdown}\n")
    for decision in store.decisions():
        if decision.version == version:
            click.echo(f"{decision.decided_at:%Y-%m-%d %H:%M} {decision.words} by {decision.decided_by}: {decision.reason}")
    click.echo(f"folder: {store.folder(version)}")


@models.command()
@click.argument("version")
@click.option("--from", "first", callback=_day, default=None, help="first day it is in force  [default: tomorrow, UTC]")
@click.option("--reason", default="promoted by hand", show_default=True, help="kept with the decision")
def promote(version: str, first: dt.date | None, reason: str) -> None:
    """Put a version in force, whatever the gate said; scores that are there stay as they are."""
    store = _store()
    with _said_plainly():
        _put_in_force(store, store.card(version), first or _today() + dt.timedelta(days=1), reason)


@models.command()
@click.option("--from", "first", callback=_day, default=None, help="first day of the return  [default: tomorrow, UTC]")
@click.option("--reason", default="rolled back by hand", show_default=True, help="kept with the decision")
def rollback(first: dt.date | None, reason: str) -> None:
    """Return to the model that was in force before the present one; scores that are there stay as they are."""
    store = _store()
    day = first or _today() + dt.timedelta(days=1)
    with _said_plainly():
        before = store.predecessor(day, store.registered(), store.decisions())
        if before is None:
            raise click.ClickException(f"no other model was in force before that of {day}: `pdm-assets models list` names all")
        _put_in_force(store, store.card(before.version), day, reason)


def _put_in_force(store: "ModelStore", card: "ModelCard", day: dt.date, reason: str) -> None:
    from pdm_assets.models.promotion import Condition, Verdict

    if card.cutoff > day:
        raise click.ClickException(
            f"{card.version} may have learnt from {day}: its cutoff is {card.cutoff}; take --from a later day"
        )
    if card.horizon_hours != store.horizon_hours:
        raise click.ClickException(
            f"{card.version} foretells {card.horizon_hours} h ahead, PDM_HORIZON_HOURS={store.horizon_hours}"
        )
    with store.alone():  # the gate may be about to decide: it then looks again
        store.decide(card.version, Verdict(True, (Condition("asked for", True, reason),)), day, f"user {_user()}")
    now = store.in_force(day, store.registered(), store.decisions())
    click.echo(f"{now.version if now else 'nothing'} is in force from {day} on")
    _show_in_mlflow(store)


def _show_in_mlflow(store: "ModelStore") -> None:
    """Bring the mirror up to date, if there is one; what was done to the registry stands without it."""
    from pdm_assets.resources.mlflow_mirror import MirrorError, mirror

    settings = _settings()
    if settings.mlflow_uri is None:
        return
    try:
        mirrored = mirror(store, settings.mlflow_uri, settings.mlflow_name, _today())
    except MirrorError as error:
        click.echo(f"warning: {error}", err=True)
        return
    for version, why in mirrored.left_out.items():
        click.echo(f"warning: {version} is not in MLflow: {why}", err=True)


@models.command()
@click.argument("version")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["zip", "mlflow"]),
    default="zip",
    show_default=True,
    help="an archive for another lake, or a new folder that MLflow serves and Spark scores with (docs/serving.md)",
)
def export(version: str, path: Path, form: str) -> None:
    """Put a version, checked, into PATH: a zip archive that another lake can import, or a folder in MLflow's format."""
    from pdm_assets.resources import mlflow_folder, model_folder

    with _said_plainly():
        write = model_folder.pack if form == "zip" else mlflow_folder.write
        write(_store().whole(version), path)
    size = sum(file.stat().st_size for file in [path, *path.rglob("*")] if file.is_file())
    click.echo(f"{path}: {version}, {size:,} bytes")


@models.command("import")
@click.argument("archive", type=click.Path(path_type=Path, dir_okay=False, exists=True))
def import_model(archive: Path) -> None:
    """Register the version in an ARCHIVE that `export` wrote, once its checksums and content are found right."""
    store = _store()
    with _said_plainly():
        card = store.take_in(archive, f"user {_user()}")
    click.echo(f"{card.version} is registered. `pdm-assets models promote {card.version}` puts it in force")
    _show_in_mlflow(store)


@models.command("mirror")
def mirror_models() -> None:
    """Bring the MLflow server of PDM_MLFLOW_URI up to date with the registry: runs, versions, decisions and aliases."""
    from pdm_assets.resources.mlflow_mirror import MirrorError, mirror

    settings = _settings()
    if settings.mlflow_uri is None:
        raise click.ClickException("PDM_MLFLOW_URI is not set: there is no MLflow server to bring up to date")
    try:
        mirrored = mirror(_store(), settings.mlflow_uri, settings.mlflow_name, _today())
    except MirrorError as error:
        raise click.ClickException(str(error)) from error
    for version, why in mirrored.left_out.items():
        click.echo(f"warning: {version} is not in MLflow: {why}", err=True)
    for version in mirrored.added:
        click.echo(f"added {version}: {mirrored.runs[version]}")
    words = ", ".join(f"{alias} is {version}" for alias, version in mirrored.aliases.items()) or "no version is in force"
    click.echo(f"{settings.mlflow_name} at {settings.mlflow_uri}: {len(mirrored.runs)} versions, {words}")


@main.group()
def quarantine() -> None:
    """The landed rows that were not taken: what is wrong with them, and how they get in once corrected."""


def _table(_context: click.Context, _parameter: click.Parameter, name: str | None) -> "Table | None":
    from pdm_assets.schemas.raw import RAW_TABLES

    tables = {table.name: table for table in RAW_TABLES}
    if name is not None and name not in tables:
        raise click.BadParameter(f"{name!r} is none of {', '.join(tables)}")
    return None if name is None else tables[name]


@quarantine.command("show")
@click.option(
    "--table", callback=_table, default=None, help="telemetry, errors, maintenance, failures or machines  [default: all]"
)
@click.option("--from", "first", callback=_day, default=None, help="first day, YYYY-MM-DD")
@click.option("--to", "last", callback=_day, default=None, help="last day, YYYY-MM-DD, included")
@click.option("--reason", "words", default="", help="only rows whose reason has these words")
@click.option("--rows", "each", is_flag=True, help="every row: file, line, reason, text and what became of it")
@click.option(
    "--csv",
    "out",
    type=click.File("w", lazy=True),
    default=None,
    help="write the unsettled rows of the table to a file to correct by hand; `release` takes it back",
)
def show_quarantine(
    table: "Table | None", first: dt.date | None, last: dt.date | None, words: str, each: bool, out: TextIO | None
) -> None:
    """What is in quarantine, by reason. A row is settled once it was released or raw has a row of its key."""
    from pdm_assets.resources.quarantine import Group, Quarantine, most_first, printable, write_csv
    from pdm_assets.schemas.raw import RAW_TABLES

    lake, root = _lake(), _settings().landing_root
    with _said_plainly():
        lake.must_be_there()
    if out is not None:
        if table is None:
            raise click.UsageError("--csv needs --table: each table has columns of its own")
        found = Quarantine(lake, root, table).rows(first, last, words)
        count = write_csv((row for row in found if row.settled is None), table, out)
        click.echo(f"{out.name}: {count} rows. Correct them, then `pdm-assets quarantine release {table.name} {out.name}`")
        return
    for its in RAW_TABLES if table is None else [table]:
        groups: dict[str, Group] = {}
        for row in Quarantine(lake, root, its).rows(first, last, words):
            groups.setdefault(row.rule, Group(row.rule)).add(row.file, row.line, row.reason, row.text, 1, row.settled is None)
            if each:
                said = f"{row.day}  {row.file}, line {row.line}  {row.reason}  [{row.text}]  {row.settled or 'unsettled'}"
                click.echo(printable(said))
        rows, unsettled = sum(g.rows for g in groups.values()), sum(g.unsettled for g in groups.values())
        click.echo(f"{its.name}: {rows} rows in quarantine, {unsettled} of them unsettled")
        for group in most_first(groups.values()):
            file, line, _, text = group.first
            click.echo(f"  {group.rows} ({group.unsettled} unsettled) of {len(group.files)} files: {printable(group.rule)}")
            click.echo(printable(f"      such as {file}, line {line}: {text}"))


@quarantine.command("release")
@click.argument("table", callback=_table)
@click.argument("corrected", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def release_quarantine(table: "Table", corrected: Path) -> None:
    """Land the rows of CORRECTED, which `show --csv` wrote, if every one is acceptable now; a row is released once."""
    from pdm_assets.engine.spark import SparkUnavailable
    from pdm_assets.resources.lake import LakeError
    from pdm_assets.resources.landing import LandingError
    from pdm_assets.resources.landing_zone import Landing
    from pdm_assets.resources.object_store import StoreError
    from pdm_assets.resources.release import ReleaseError, release

    zone, lake = Landing.of(_settings()).zone, _lake()
    try:
        done = release(zone, lake, table, corrected, f"user {_user()}", dt.datetime.now(dt.UTC))
    except (ReleaseError, LandingError, LakeError, StoreError, SparkUnavailable) as error:
        raise click.ClickException(str(error)) from error
    for path in done.landed:
        click.echo(f"landed {path}")
    click.echo(
        f"{done.rows} rows released" + (f", of which raw has {done.duplicates} already" if done.duplicates else "")
        if done.rows
        else "nothing new"
    )
    if done.before:
        click.echo(f"{done.before} rows were released before")


@main.command()
@click.option("--machines", default=100, show_default=True, type=click.IntRange(1))
@click.option("--port", default=3000, show_default=True, help="of the web server, on 127.0.0.1")
def demo(machines: int, port: int) -> None:
    """Simulate a fleet, train, start Dagster and score its days as they land. Ctrl-C ends everything."""
    from pdm_assets.demo import run

    run(machines=machines, port=port, settings=_settings())


@main.command()
@click.option("--port", default=3000, show_default=True, help="of the web server, on 127.0.0.1")
def dev(port: int) -> None:
    """Dagster's web server and daemon on the data root, whose folder dagster/ keeps their runs and events."""
    from pdm_assets.demo import serve

    sys.exit(serve(_home(), port))


@main.command()
def home() -> None:
    """Write the DAGSTER_HOME of the data root, for Dagster's processes as services (docs/deploy.md), and say where it is."""
    click.echo(_home())


def _home() -> Path:
    from pdm_assets.demo import make_home

    settings = _settings()
    data = settings.data.absolute()
    os.environ["PDM_DATA"] = str(data)
    where = make_home(data, in_postgres=settings.dagster_db is not None)
    if (asked := os.environ.get("DAGSTER_HOME")) and Path(asked).resolve() != where.resolve():
        raise click.ClickException(
            f"DAGSTER_HOME is {asked}, that of this PDM_DATA is {where}: Dagster would run on its defaults. "
            "Unset it, or set it to that"
        )
    return where
