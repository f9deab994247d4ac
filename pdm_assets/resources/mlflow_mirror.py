"""A mirror of the registry on an MLflow server: a run and a model version of each version, and aliases.

The registry (Delta) stays the truth. Each call compares it with the server and adds what the server lacks, so one that was
down, or lost what it had, is caught up by the next call. Versions are told by the tag pdm_version, as MLflow numbers them anew.
`mlflow.spark` is not used: it reaches into a JVM that Spark Connect does not show.
"""

import datetime as dt
import fcntl
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pdm_assets.models import markdown
from pdm_assets.models.card import ModelCard
from pdm_assets.models.evaluation import POOLED
from pdm_assets.models.reports import baselines
from pdm_assets.resources.model_store import Decision, ModelStore, NoSuchModel, Registered

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

VERSION_TAG = "pdm_version"
FOLDER = "model"  # of a run's artifacts: the sealed folder as it is in the store
CHAMPION, CHALLENGER = "champion", "challenger"
LONGEST_TAG = 5_000  # MLflow refuses longer ones
PAGE = 1_000

# For want of the user's own. MLflow's defaults, 120 s and 7 retries a request, could keep a training waiting for a quarter of
# an hour; and who mirrors to a server of their own has not agreed to report to MLflow's makers. It prints an address a run.
MLFLOW_DEFAULTS = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


class MirrorError(RuntimeError):
    """The server was not brought up to date; the text says why and what to do. Nothing of the platform depends on it."""


@dataclass(frozen=True)
class Mirrored:
    """What a call left on the server.

    Args:
        added: versions that it did not have before.
        runs: by version, where a browser finds its run.
        aliases: the version that each alias stands for.
        left_out: versions that can't be mirrored, with the reason.
    """

    added: tuple[str, ...]
    runs: Mapping[str, str]
    aliases: Mapping[str, str]
    left_out: Mapping[str, str]


def mirror(store: ModelStore, uri: str, name: str, today: dt.date | None = None) -> Mirrored:
    """Add what the registry has and the server lacks, and set tags and aliases as the decisions stand.

    `champion` is the version in force today (UTC), `challenger` the one with the newest knowledge if that is another.

    Args:
        store: registry, decisions and folders.
        uri: the server.
        name: of the experiment and the registered model; made if it is not there.
        today: a day other than the clock's.

    Raises:
        MirrorError: if MLflow is not installed, does not answer or refuses; what had arrived by then stays.
    """
    today = today or dt.datetime.now(dt.UTC).date()
    models, decisions = store.registered(), store.decisions()
    try:
        with _alone(Path(store.root)):
            return _Server(_client(uri), uri, name).catch_up(store, models, decisions, today)
    except ImportError as error:
        raise MirrorError(
            f"PDM_MLFLOW_URI is set, but MLflow can't be imported ({error}): run `make setup` in the checkout, or "
            "`.venv/bin/uv pip install -e '.[mlflow]'`, then `pdm-assets models mirror` catches up"
        ) from error
    except Exception as error:  # servers of any release answer here: whatever they say, no training may fail by it
        raise MirrorError(
            f"MLflow at {uri} is not up to date: {error}. The registry is whole; once the server answers, "
            "`pdm-assets models mirror` or the next run of models/failure_model catches up"
        ) from error


def _client(uri: str) -> "MlflowClient":
    for variable, value in MLFLOW_DEFAULTS.items():
        os.environ.setdefault(variable, value)
    from mlflow import MlflowClient

    return MlflowClient(uri, uri)


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Two at a time would both add what is missing."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".mlflow.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError("another process is mirroring to it") from None
        yield


class _Server:
    def __init__(self, client: "MlflowClient", uri: str, name: str) -> None:
        self.client, self.uri, self.name = client, uri.rstrip("/"), name

    def catch_up(
        self, store: ModelStore, models: Sequence[Registered], decisions: Sequence[Decision], today: dt.date
    ) -> Mirrored:
        client = self.client
        experiment = client.get_experiment_by_name(self.name)
        experiment_id = experiment.experiment_id if experiment else client.create_experiment(self.name)
        if not client.search_registered_models(f"name = '{self.name}'"):
            client.create_registered_model(self.name)
        there, added, left_out = self._versions(), [], {}
        last = {decision.version: decision for decision in decisions}
        for model in models:
            said = _said(last.get(model.version))
            if model.version in there:
                self._update_tags(there[model.version], said)
                continue
            try:
                card = store.card(model.version)
            except NoSuchModel as error:
                left_out[model.version] = str(error)
                continue
            there[model.version] = self._add(experiment_id, model, card, store.folder(model.version), said)
            added.append(model.version)
        aliases = self._set_aliases(_standing(store, models, decisions, today), there)
        runs = {
            version: f"{self.uri}/#/experiments/{experiment_id}/runs/{its.run_id}"
            for version, its in there.items()
            if its.run_id
        }
        return Mirrored(tuple(added), runs, aliases, left_out)

    def _versions(self) -> "dict[str, ModelVersion]":
        found: dict[str, ModelVersion] = {}
        token = None
        while True:
            page = self.client.search_model_versions(f"name = '{self.name}'", max_results=PAGE, page_token=token)
            found |= {its.tags[VERSION_TAG]: its for its in page if VERSION_TAG in its.tags}
            token = page.token
            if not token:
                return found

    def _add(
        self, experiment_id: str, model: Registered, card: ModelCard, folder: Path, said: Mapping[str, str]
    ) -> "ModelVersion":
        """The version is made last, so one that was broken off is begun again, in the run that it had."""
        from mlflow.entities import Metric, Param

        at = int(model.trained_at.timestamp() * 1000)
        run = self._run_of(card.version, experiment_id) or self.client.create_run(
            experiment_id, start_time=at, tags={VERSION_TAG: card.version}, run_name=card.version
        )
        run_id = run.info.run_id
        self.client.log_batch(
            run_id,
            metrics=[Metric(key, value, at, 0) for key, value in metrics_of(card).items()],
            params=[Param(key, value) for key, value in params_of(card).items()],
        )
        about = "\n\n".join([baselines(card).markdown, *map(markdown.text, card.notes)])
        self.client.set_tag(run_id, "mlflow.note.content", about[:LONGEST_TAG])
        self.client.log_artifacts(run_id, str(folder), FOLDER)
        self.client.set_terminated(run_id, end_time=at)
        return self.client.create_model_version(
            self.name,
            f"{run.info.artifact_uri}/{FOLDER}",
            run_id,
            tags={VERSION_TAG: card.version, **said},
            await_creation_for=0,  # nothing on a server of one's own has to become ready
        )

    def _run_of(self, version: str, experiment_id: str) -> "Run | None":
        found = self.client.search_runs([experiment_id], f"tags.{VERSION_TAG} = '{version}'", max_results=1)
        return found[0] if found else None

    def _update_tags(self, its: "ModelVersion", said: Mapping[str, str]) -> None:
        for key, value in said.items():
            if its.tags.get(key) != value:
                self.client.set_model_version_tag(self.name, its.version, key, value)

    def _set_aliases(self, standing: Mapping[str, str | None], there: "Mapping[str, ModelVersion]") -> dict[str, str]:
        now = self.client.get_registered_model(self.name).aliases
        found = {}
        for alias, version in standing.items():
            if version is not None and version in there:
                found[alias] = version
                if now.get(alias) != str(there[version].version):
                    self.client.set_registered_model_alias(self.name, alias, str(there[version].version))
            elif alias in now:
                self.client.delete_registered_model_alias(self.name, alias)
        return found


def _standing(
    store: ModelStore, models: Sequence[Registered], decisions: Sequence[Decision], today: dt.date
) -> dict[str, str | None]:
    """The version that each alias should stand for."""
    now, fitting = store.in_force(today, models, decisions), store.fitting(today, models)
    newest = fitting[-1] if fitting and fitting[-1] != now else None
    return {CHAMPION: now.version if now else None, CHALLENGER: newest.version if newest else None}


def _said(decision: Decision | None) -> dict[str, str]:
    """The decision that prevails on a version, as tags."""
    if decision is None:
        return {"decision": "none"}
    return {
        "decision": "promoted" if decision.is_promoted else "refused",
        "in_force_from": decision.in_force_from.isoformat(),
        "decided_by": decision.decided_by,
        "reason": decision.reason[:LONGEST_TAG],
    }


def params_of(card: ModelCard) -> dict[str, str]:
    """What a model was made from: its windows as [start, end), classifier parameters and versions of the tables it read."""
    params: dict[str, Any] = {
        "model_type": card.model_type,
        "horizon_hours": card.horizon_hours,
        "cutoff": card.cutoff,
        **{f"window/{name}": f"[{its.window.start}, {its.window.end})" for name, its in card.windows.items()},
        "rows_fitted": card.rows_fitted,
        "one_healthy_in": card.one_healthy_in,
        "one_failing_in": card.one_failing_in,
        **{f"classifier/{name}": value for name, value in card.parameters.items()},
        "seed": card.seed,
        **{f"data/{table}": version for table, version in card.data_versions.items()},
        "code_version": card.code_version,
    }
    return {key: str(value) for key, value in params.items()}


def metrics_of(card: ModelCard) -> dict[str, float]:
    """The test window in numbers, `<component or pooled>/<metric>`; what nothing happened to tell by is not there."""
    found: dict[str, float | None] = {f"{c}/threshold": value for c, value in card.thresholds.items()}
    for component, its in card.metrics["test"].items():
        found |= {f"{component}/{name}": value for name, value in asdict(its).items()}
    for component, report in card.events.items():
        found |= {f"{component}/{name}": value for name, value in asdict(report.observed).items()}
        for name in ("saving", "never_cost", "calendar_cost", "alarmed_machines_per_day"):
            found[f"{component}/{name}"] = getattr(report, name)
    found[f"{POOLED}/precision_at_capacity"] = card.capacity.precision
    found[f"{POOLED}/recall_at_capacity"] = card.capacity.recall
    return {key: float(value) for key, value in found.items() if value is not None and math.isfinite(value)}
