"""The commands that look after a data root: `health`, `lake verify|restore|upgrade`, `backup` and `restore-backup`."""

import datetime as dt
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pdm_assets.cli_common import settings, user

if TYPE_CHECKING:
    from pdm_assets.resources.model_store import ModelStore
    from pdm_assets.schemas.table import Table


def _time(_context: click.Context, _parameter: click.Parameter, text: str | None) -> dt.datetime | None:
    try:
        at = None if text is None else dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no time: write YYYY-MM-DDTHH:MM, UTC") from error
    return at.replace(tzinfo=dt.UTC) if at and at.tzinfo is None else at


def clock() -> dt.datetime:
    """The time that `health` goes by."""
    return dt.datetime.now(dt.UTC)


@contextmanager
def _said_plainly() -> Iterator[None]:
    from pdm_assets.engine.spark import SparkUnavailable
    from pdm_assets.resources.backup import BackupError
    from pdm_assets.resources.hold import LakeHeld
    from pdm_assets.resources.lake import LakeError
    from pdm_assets.resources.object_store import StoreError

    try:
        yield
    except (BackupError, SparkUnavailable, LakeError, LakeHeld, StoreError) as error:
        raise click.ClickException(str(error)) from error


def _store() -> "ModelStore":
    from pdm_assets.resources.lake import Lake
    from pdm_assets.resources.model_store import ModelStore
    from pdm_assets.resources.spark import SparkEngine

    of = settings()
    return ModelStore.of(of, Lake.of(of, SparkEngine.of(of)))


@click.group()
def lake() -> None:
    """The Delta tables: are they whole, back to an earlier version, on to this release's format."""


@lake.command()
@click.option("--table", "name", default=None, help="only this table, such as raw/telemetry")
def verify(name: str | None) -> None:
    """Look at every file, key, day, balance, version and model anew, without Spark; exit code 1 if something is wrong."""
    from pdm_assets.definitions import defs
    from pdm_assets.resources.landing_zone import Landing
    from pdm_assets.resources.verify import Verifier, tables_at

    of, store, now = settings(), _store(), dt.datetime.now(dt.UTC)
    wrong = 0
    with _said_plainly():
        tables = tables_at(store.lake, name)
        graph = defs.resolve_asset_graph()
        made_from = {
            key.to_user_string(): [parent.to_user_string() for parent in graph.get(key).parent_keys]
            for key in graph.get_all_asset_keys()
        }
        verifier = Verifier(store, Landing.of(of).zone, of.cadence_hours, of.keep_model_data_days, now, made_from)
        for finding in verifier.findings(tables):
            wrong += finding.is_wrong
            click.echo(f"{'WRONG' if finding.is_wrong else 'note '} {finding.where}: {finding.what}")
            click.echo(f"      what to do: {finding.todo}")
    click.echo(f"{len(tables)} tables looked at: {f'{wrong} things are wrong' if wrong else 'nothing is wrong'}")
    sys.exit(1 if wrong else 0)


@lake.command()
@click.argument("table")
@click.option("--version", default=None, type=click.IntRange(0), help="the Delta version to return to")
@click.option("--at", callback=_time, default=None, help="the time to return to, YYYY-MM-DDTHH:MM, UTC")
@click.option("--reason", default="restored by hand", show_default=True, help="kept with the commit")
def restore(table: str, version: int | None, at: dt.datetime | None, reason: str) -> None:
    """Make TABLE what it was; a new version, so that it can be undone. Refused while a run writes."""
    from pdm_assets.resources.verify import tables_at
    from pdm_assets.resources.versions import restore as restore_table
    from pdm_assets.resources.versions import version_at

    if (version is None) == (at is None):
        raise click.UsageError("say either --version or --at")
    its = _store().lake
    with _said_plainly(), its.held_by(f"pdm-assets lake restore (pid {os.getpid()})"):
        (found,) = tables_at(its, table)
        wanted = version_at(its, found, at) if at else version
        assert wanted is not None  # one of the two was given
        done = restore_table(its, found, wanted, {"restored_by": user(), "reason": reason, "to_version": wanted})
    click.echo(f"{table} is what it was at version {wanted}, and that is version {done.after} now")
    click.echo(f"to undo it: pdm-assets lake restore {table} --version {done.before}")
    for line in _stale(found, done.days):
        click.echo(line)


def _stale(table: "Table", days: list[dt.date]) -> Iterator[str]:
    """Which days changed, and what was made from them."""
    from dagster import AssetKey

    from pdm_assets.automation.plan import reach
    from pdm_assets.definitions import defs
    from pdm_assets.partitions import LOOKBACK_DAYS, SETTINGS

    if not table.daily:
        yield "the table has no days; `pdm-assets models list` shows which model is in force now"
        return
    if not days:
        yield "no day changed"
        return
    yield f"{len(days)} days changed: {', '.join(map(str, days[:5]))}{f' ... {days[-1]}' if len(days) > 5 else ''}"
    graph = defs.resolve_asset_graph()
    made_from: list[AssetKey] = []
    ahead = [AssetKey(table.key.split("/"))]
    while ahead:
        key = ahead.pop()
        children = sorted(graph.get(key).child_keys) if graph.has(key) else []
        new = [child for child in children if child not in made_from]
        made_from += new
        ahead += new
    if not made_from:
        return
    further = reach({table.key: "changed"}, {}, LOOKBACK_DAYS, SETTINGS.horizon_days) if table.group == "raw" else 0
    last = "the last one" if further is None else str(days[-1] + dt.timedelta(days=further))
    yield f"stale now, from {days[0]} to {last}: materialize in the UI, for these days, all of"
    yield from (f"  {key.to_user_string()}" for key in sorted(made_from))


@lake.command()
def upgrade() -> None:
    """Bring the tables of an earlier release to this one's format. Make a backup first. Refused while a run writes."""
    from pdm_assets.resources.upgrade import upgrade as upgrade_lake

    steps, its = 0, _store().lake
    with _said_plainly(), its.held_by(f"pdm-assets lake upgrade (pid {os.getpid()})"):
        for table, step in upgrade_lake(its):
            steps += 1
            click.echo(f"{table.key}: format {step.format}, {step.what}")
    click.echo("every table is in this release's format" if steps else "nothing to do: every table is in this release's format")


@lake.command("take-over")
def take_over() -> None:
    """Let the engine of PDM_ENGINE write the tables of a lake on S3 from now on. Refused while a run writes."""
    its = _store().lake
    with _said_plainly(), its.held_by(f"pdm-assets lake take-over (pid {os.getpid()})"):
        for table in its.tables():
            its.take_over(table)
    click.echo(f"the engine {its.spark.engine} writes every table")


@click.command()
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--wait", default=0.0, show_default=True, help="seconds to wait for a run that is under way")
def backup(target: Path, wait: float) -> None:
    """Put the data root into the archive TARGET (.tar.gz), or into a new one in the folder TARGET; runs wait meanwhile."""
    from pdm_assets.resources.backup import MADE_ANEW, back_up

    of = settings()
    with _said_plainly():
        archive, entries = back_up(of.data, _store().lake, target, wait)
    size = sum(entry.size for entry in entries)
    click.echo(f"{archive}: {len(entries)} files, {size:,} bytes, packed {archive.stat().st_size:,}")
    click.echo(f"left out, for they are made anew: {', '.join(MADE_ANEW)}")
    if of.lake is not None:
        click.echo(
            f"left out, for they are not in the data root: the tables in {of.lake}. Back them up by the store's own means"
        )


@click.command("restore-backup")
@click.argument("archive", type=click.Path(path_type=Path, dir_okay=False, exists=True))
def restore_backup(archive: Path) -> None:
    """Put an ARCHIVE back as the data root, which must be empty; every file is compared with its checksum first."""
    from pdm_assets.resources.backup import put_back

    data = settings().data
    with _said_plainly():
        entries = put_back(archive, data)
    click.echo(f"{data}: {len(entries)} files are back. `pdm-assets lake verify` looks at the tables and models")
    click.echo("its folders have their modes; who owned them is not kept: set owners and groups again, if you had set any")


@click.command()
@click.option("--json", "json_", is_flag=True, help="all that was found, as JSON")
@click.option(
    "--prometheus",
    "metrics",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    default=None,
    help="put the metrics into this file (.prom) by rename, for node_exporter's textfile collector; - prints them instead",
)
@click.option("--web", default=None, help="ask Dagster's web server too, such as http://127.0.0.1:3000")
@click.option(
    "--backups",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="ask for the age of the newest backup in this folder too",
)
def health(json_: bool, metrics: Path | None, web: str | None, backups: Path | None) -> None:
    """Is all well, rule by rule, without Spark; nothing is changed. Exit code 0: yes, 1: a warning, 2: critical."""
    try:
        of = settings()
    except click.ClickException as error:
        click.echo(f"CRITICAL: {error.message}")
        sys.exit(2)
    from pdm_assets.health.rules import look_at
    from pdm_assets.health.told import as_json, lines, prometheus, worst
    from pdm_assets.resources.reports import Reports

    now = clock()
    home = Path(os.environ.get("DAGSTER_HOME") or of.data.absolute() / "dagster")
    findings = look_at(of, home, now, web=web, backups=backups)
    if metrics is not None and str(metrics) != "-":
        try:
            metrics.parent.stat()  # a wrong path makes no folder
            Reports(root=str(metrics.parent)).write(metrics.name, prometheus(findings, now))
        except OSError as error:
            click.echo(f"CRITICAL: {metrics} can't be written: {error.strerror}")
            sys.exit(2)
    if str(metrics) == "-":
        click.echo(prometheus(findings, now), nl=False)
    elif json_:
        click.echo(as_json(findings, now))
    else:
        for line in lines(findings):
            click.echo(line)
    sys.exit(int(worst(findings)))
