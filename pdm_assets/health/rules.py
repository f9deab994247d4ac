"""All rules, each with the part of docs/operations.md that says what to do."""

import dataclasses
import datetime as dt
import re
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import dagster as dg

from pdm_assets.health import of_dagster, of_lake
from pdm_assets.health.look import Level, Look, NotAsked, Said
from pdm_assets.health.told import Finding
from pdm_assets.resources.verify import first_line
from pdm_assets.settings import Settings


class Rule(NamedTuple):
    """A question, and the heading of docs/operations.md for when the answer is bad."""

    name: str
    runbook: str
    ask: Callable[[Look], Said]


SCORES, RUNS, FILES, QUARANTINE = "scores-are-missing", "a-run-failed", "a-file-is-not-taken", "many-rows-are-in-quarantine"
FIT, DISK, SERVICES = "memory-runs-out-or-a-fit-fails", "the-disk-is-full-or-gone", "dagster-is-down"
HANGS, MODEL, LOST = "a-run-does-not-end", "no-model-or-one-that-no-longer-fits", "a-table-is-damaged-or-lost"
CHECKS = "checks"  # which of the others it is, a table there says by check

RULES = (
    Rule("database", SERVICES, of_dagster.database),
    Rule("daemon", SERVICES, of_dagster.daemon),
    Rule("sensor", SERVICES, of_dagster.sensor),
    Rule("web", SERVICES, of_dagster.web),
    Rule("failed_runs", RUNS, of_dagster.failed_runs),
    Rule("runs_under_way", HANGS, of_dagster.runs_under_way),
    Rule("checks", CHECKS, of_dagster.checks),
    Rule("files", FILES, of_lake.files),
    Rule("landed", FILES, of_lake.landed),
    Rule("lake", DISK, of_lake.lake),
    Rule("scores", SCORES, of_lake.scores),
    Rule("quarantine", QUARANTINE, of_lake.quarantine),
    Rule("model", MODEL, of_lake.model),
    Rule("java", FIT, of_lake.java),
    Rule("disk", DISK, of_lake.disk),
    Rule("backup", LOST, of_lake.backup),
)


def look_at(
    settings: Settings, home: Path, now: dt.datetime, *, web: str | None = None, backups: Path | None = None
) -> list[Finding]:
    """Ask each rule of a data root and the DAGSTER_HOME of its instance; one that can't be asked is critical."""
    with ExitStack() as opened:
        instance, why = _open(settings, home, opened)
        look = Look(settings, now, instance, why, web, backups)
        return [Finding(rule.name, f"docs/operations.md#{rule.runbook}", _ask(rule, look)) for rule in RULES]


def _ask(rule: Rule, look: Look) -> Said:
    try:
        said = rule.ask(look)
    except NotAsked as why:
        said = Said(why.level, f"not asked: {why}", "see to the rule database first")
    except Exception as error:
        todo = "see to the other rules first; if it stays, `pdm-assets lake verify` looks at every table"
        said = Said(Level.CRITICAL, f"can't be asked: {type(error).__name__}: {first_line(str(error))}", todo)
    return dataclasses.replace(said, what=_hidden(said.what, look.settings), todo=said.todo if said.level else "")


def _open(settings: Settings, home: Path, opened: ExitStack) -> tuple[dg.DagsterInstance | None, str]:
    """The instance, or why there is none. One that never ran is not made: the look writes nothing."""
    if not (home / "dagster.yaml").exists() or (settings.dagster_db is None and not (home / "history").is_dir()):
        return None, f"Dagster has never run on {home}"
    try:
        instance = opened.enter_context(dg.DagsterInstance.from_config(str(home)))
        instance.get_run_records(limit=1)
    except Exception as error:  # a database's words may hold its address: they are not shown
        what = "the PostgreSQL of PDM_DAGSTER_DB does not answer, or does not let us in" if settings.dagster_db else str(home)
        return None, f"Dagster's database can't be read: {what} ({type(error).__name__})"
    return instance, ""


def _hidden(text: str, settings: Settings) -> str:
    """A text without what settings keep secret."""
    for each in dataclasses.fields(settings):
        value = getattr(settings, each.name)
        if each.repr or not value:
            continue
        password = urlsplit(value).password or ""
        for secret in (value, password, unquote(password), *re.findall(r"=([^;]+)", value)):
            text = text.replace(secret, "***") if secret else text
    return text
