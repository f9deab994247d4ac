"""Where models live: saved pipelines with their cards, the registry of versions, and what was decided on them."""

import datetime as dt
import fcntl
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import numpy as np
from pydantic import PrivateAttr

from pdm_assets.models.card import ModelCard
from pdm_assets.models.promotion import Verdict
from pdm_assets.models.served import SavedPipeline, ServedModelError
from pdm_assets.resources import model_folder
from pdm_assets.resources.delta_io import days_of, describe, describe_days, mark_days
from pdm_assets.resources.lake import Lake
from pdm_assets.resources.model_folder import ModelFolderError
from pdm_assets.schemas.features import (
    CATEGORICAL_FEATURES,
    DECISIONS,
    FAILURE_MODEL,
    NUMERIC_FEATURES,
    OBSERVATIONS,
    REGISTRY,
)
from pdm_assets.schemas.raw import COMPONENTS
from pdm_assets.schemas.table import DATE
from pdm_assets.settings import Settings

if TYPE_CHECKING:
    from pdm_assets.models.training import TrainedModel


ABANDONED_S = 24 * 3600  # no training and no import takes so long
VERSION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")


class NoSuchModel(LookupError):
    """No registered model fits what was asked for; the text names those there are."""


@dataclass(frozen=True)
class Registered:
    """A version in the registry."""

    version: str
    model_type: str
    horizon_hours: int
    cutoff: dt.date
    trained_at: dt.datetime

    @property
    def age_order(self) -> tuple[dt.date, dt.datetime]:
        """Newest knowledge last."""
        return self.cutoff, self.trained_at


@dataclass(frozen=True)
class Decision:
    """What was decided on a version: a promoted one is in force from a day on, until the next promotion's day."""

    version: str
    is_promoted: bool
    in_force_from: dt.date
    decided_at: dt.datetime
    decided_by: str
    reason: str

    @property
    def words(self) -> str:
        """Its outcome."""
        return f"promoted from {self.in_force_from} on" if self.is_promoted else f"refused for {self.in_force_from}"


@dataclass(frozen=True)
class DayModel:
    """The model in force for one day, or why there is none."""

    version: str | None
    cutoff: dt.date | None
    status: str
    detail: str


class ModelStore(dg.ConfigurableIOManager):
    """Saves and finds models; as an IO manager, keeps the model in force of each day in lake/models/failure_model."""

    lake: dg.ResourceDependency[Lake]
    root: str
    horizon_hours: int
    _loaded: dict[str, tuple[SavedPipeline, ModelCard]] = PrivateAttr(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings, lake: Lake) -> "ModelStore":
        """The store that the settings describe."""
        return cls(lake=lake, root=str((settings.data / "models").absolute()), horizon_hours=settings.horizon_hours)

    def handle_output(self, context: dg.OutputContext, obj: Mapping[dt.date, DayModel]) -> None:
        """Write down the model in force of each day of the run."""
        start, end = days_of(context)
        rows = [
            (model.version, model.cutoff and _midnight(model.cutoff), model.status, model.detail, day)
            for day, model in obj.items()
        ]
        frame = self.lake.spark.spark_session.createDataFrame(rows, FAILURE_MODEL.struct)
        commit = self.lake.replace_days(
            FAILURE_MODEL, frame, start, end, {"run_id": context.run_id, "asset": FAILURE_MODEL.key}
        )
        context.add_output_metadata(describe(self.lake, FAILURE_MODEL, commit))
        of_days = describe_days(self.lake, FAILURE_MODEL, commit)
        for day, model in obj.items():
            of_days[day] |= {"model_version": model.version or "none", "status": model.status}
        mark_days(context, of_days)

    def load_input(self, context: dg.InputContext) -> dict[dt.date, DayModel]:
        """The model in force of each day that is read."""
        start, end = days_of(context)
        rows = self.lake.rows(FAILURE_MODEL, start, end)
        return {
            row[DATE]: DayModel(
                row["model_version"],
                row["cutoff_at"] and row["cutoff_at"].date(),
                row["status"],
                row["detail"],
            )
            for row in rows
        }

    def save(self, trained: "TrainedModel", pictures: Mapping[str, bytes], run_id: str) -> None:
        """Keep a trained model with its pictures: folder first, registry row last, so that what is registered is whole."""
        self._clear_abandoned()
        partial = self.folder(f".{trained.card.version}.part")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(trained.pipeline.folder, partial / "pipeline")
        (partial / "card.json").write_text(trained.card.to_json())
        for name, png in pictures.items():
            (partial / f"{name}.png").write_bytes(png)
        model_folder.seal(partial)
        with self.alone():
            self._put(partial, trained.card.version)
            self._register(trained.card, {"run_id": run_id})

    @contextmanager
    def new_folder(self) -> Iterator[Path]:
        """A folder for a pipeline that is fitted, until the context ends; `save` keeps a copy."""
        partial = Path(self.root) / f".{uuid.uuid4().hex}.part"
        partial.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _clear_abandoned(self) -> None:
        """Remove folders that runs and imports left half-written which died; nothing reads them."""
        for partial in Path(self.root).glob(".*.part"):
            if abs(time.time() - partial.stat().st_mtime) > ABANDONED_S:
                shutil.rmtree(partial, ignore_errors=True)

    def folder(self, version: str) -> Path:
        """Where a version is, or would be."""
        if not VERSION_NAME.fullmatch(version.removeprefix(".")):
            raise ModelFolderError(f"{version!r} is no name for a version")
        return Path(self.root) / version

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other process registers or decides: of two that look and then write, the second sees the first."""
        Path(self.root).mkdir(parents=True, exist_ok=True)
        folder = os.open(self.root, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def _put(self, partial: Path, version: str) -> None:
        """Give a whole folder its name, alone. One that is not registered is left of a run that died there: it makes way."""
        if any(model.version == version for model in self.registered()):
            raise ModelFolderError(f"{version} is registered already")
        shutil.rmtree(self.folder(version), ignore_errors=True)
        partial.replace(self.folder(version))

    def _register(self, card: ModelCard, note: Mapping[str, str], origin: Mapping[str, str] | None = None) -> None:
        row = (
            card.version,
            card.model_type,
            card.horizon_hours,
            _midnight(card.cutoff),
            dt.datetime.now(dt.UTC),
            json.dumps({**json.loads(card.to_json()), **(origin or {})}),
        )
        frame = self.lake.spark.spark_session.createDataFrame([row], REGISTRY.struct)
        self.lake.append(REGISTRY, frame, {**note, "model_version": card.version})

    def take_in(self, archive: Path, by: str) -> ModelCard:
        """Register a version that another lake packed; it is in force only once it is promoted.

        Raises:
            ModelFolderError: if the archive is damaged, or the model can't work here; nothing is kept of it.
        """
        partial = Path(self.root) / f".{uuid.uuid4().hex}.part"
        model_folder.unpack(archive, partial)
        try:
            card = self._fitting_card(partial)
            self._try_out(partial, card)
            # In the row too: the versions that such a card names are those of another lake's tables.
            origin = {"taken_from": archive.name, "taken_by": by}
            with self.alone():
                self._put(partial, card.version)
                self._register(card, origin, origin)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return card

    def _fitting_card(self, folder: Path) -> ModelCard:
        try:
            card = ModelCard.from_json((folder / "card.json").read_text())
        except (OSError, ValueError) as error:
            raise ModelFolderError(f"its card can't be read: {error}") from error
        if not VERSION_NAME.fullmatch(card.version):
            raise ModelFolderError(f"{card.version!r} is no name for a version")
        if card.horizon_hours != self.horizon_hours:
            raise ModelFolderError(
                f"{card.version} foretells {card.horizon_hours} h ahead, PDM_HORIZON_HOURS={self.horizon_hours}"
            )
        if unknown := sorted(set(card.features) - {*NUMERIC_FEATURES, *CATEGORICAL_FEATURES}):
            raise ModelFolderError(f"{card.version} reads features that this platform does not have: {', '.join(unknown)}")
        if unknown := sorted(set(card.thresholds) ^ set(COMPONENTS)):
            raise ModelFolderError(f"{card.version} and this platform do not have the same components: {', '.join(unknown)}")
        return card

    def _try_out(self, folder: Path, card: ModelCard) -> None:
        """Score a usual observation: what the pipeline itself reads may be other than its card says."""
        usual = {name: np.array([card.usual.get(name, 0.0)]) for name in NUMERIC_FEATURES if name in card.features}
        unknown = {name: np.array([""], dtype=object) for name in CATEGORICAL_FEATURES}
        try:
            pipeline = SavedPipeline(folder / "pipeline")
            pipeline.scores({**usual, **unknown}, [c for c in COMPONENTS if c not in card.constant_probabilities])
        except (ServedModelError, LookupError, ValueError) as error:
            said = str(error).split("\n", 1)[0][:300]
            raise ModelFolderError(f"the pipeline of {card.version} can't score rows of {OBSERVATIONS.key}: {said}") from error

    def decide(self, version: str, verdict: Verdict, in_force_from: dt.date, by: str) -> None:
        """Keep a verdict on a registered version; decisions are never changed, only followed by others."""
        # The later made prevails: a clock that was set back must not put it before what it overrules.
        latest = max((d.decided_at + dt.timedelta(microseconds=1) for d in self.decisions()), default=None)
        row = (
            version,
            "promoted" if verdict.is_promoted else "refused",
            in_force_from,
            max(filter(None, (dt.datetime.now(dt.UTC), latest))),
            by,
            verdict.reason,
            json.dumps([asdict(condition) for condition in verdict.conditions]),
        )
        frame = self.lake.spark.spark_session.createDataFrame([row], DECISIONS.struct)
        self.lake.append(DECISIONS, frame, {"decided_by": by, "model_version": version})

    def decisions(self) -> list[Decision]:
        """Every decision, those that prevail last: of later days, and of one day the later made."""
        if not self.lake.exists(DECISIONS):
            return []
        found = [
            Decision(
                r["model_version"],
                r["decision"] == "promoted",
                r["in_force_from"],
                r["decided_at"],
                r["decided_by"],
                r["reason"],
            )
            for r in self.lake.rows(DECISIONS)
        ]
        return sorted(found, key=lambda d: (d.in_force_from, d.decided_at, d.version))

    def whole(self, version: str) -> Path:
        """The folder of a registered version, its files as they were written.

        Raises:
            NoSuchModel: if the version is not registered, or its folder is gone or damaged.
        """
        known = {model.version for model in self.registered()}
        if version not in known:
            raise NoSuchModel(f"no model {version!r}. Registered: {', '.join(sorted(known)) or 'none'}")
        folder = self.folder(version)
        try:
            if not folder.is_dir():
                raise ModelFolderError(f"its folder {folder} is gone")
            model_folder.check(folder)
        except ModelFolderError as error:
            raise NoSuchModel(
                f"model {version} is registered, but {error}. Restore the folder from a backup, or put another version in "
                "force: `pdm-assets models promote VERSION`"
            ) from error
        return folder

    def card(self, version: str) -> ModelCard:
        """The card of a registered version.

        Raises:
            NoSuchModel: as of `whole`.
        """
        return ModelCard.from_json((self.whole(version) / "card.json").read_text())

    def load(self, version: str) -> tuple[SavedPipeline, ModelCard]:
        """The saved pipeline of a version and its card; read once a run.

        Raises:
            NoSuchModel: as of `whole`.
        """
        if version not in self._loaded:
            card = self.card(version)
            self._loaded[version] = SavedPipeline(self.folder(version) / "pipeline"), card
        return self._loaded[version]

    def registered(self) -> list[Registered]:
        """Every version, the newest knowledge last."""
        if not self.lake.exists(REGISTRY):
            return []
        rows = self.lake.rows(
            REGISTRY,
            columns=["model_version", "model_type", "horizon_hours", "cutoff_at", "trained_at"],
        )
        models = [
            Registered(
                r["model_version"],
                r["model_type"],
                r["horizon_hours"],
                r["cutoff_at"].date(),
                r["trained_at"],
            )
            for r in rows
        ]
        return sorted(models, key=lambda model: model.age_order)

    def fitting(self, day: dt.date, models: Sequence[Registered]) -> list[Registered]:
        """Those of the models that knew nothing of the day, for this store's horizon, the newest knowledge last."""
        return [m for m in models if m.cutoff <= day and m.horizon_hours == self.horizon_hours]

    def in_force(self, day: dt.date, models: Sequence[Registered], decisions: Sequence[Decision]) -> Registered | None:
        """The model that was promoted last for the day or an earlier one, of those that knew nothing of the day."""
        fitting = {model.version: model for model in self.fitting(day, models)}
        promoted = [d.version for d in decisions if d.is_promoted and d.in_force_from <= day and d.version in fitting]
        return fitting[promoted[-1]] if promoted else None

    def predecessor(self, day: dt.date, models: Sequence[Registered], decisions: Sequence[Decision]) -> Registered | None:
        """What a rollback from the model in force on a day returns to: that which it took over from.

        A model that is promoted again undoes what came after its first promotion: a rollback does not return to a model that
        another one left.
        """
        fitting = {model.version: model for model in self.fitting(day, models)}
        stack: list[str] = []
        for decision in decisions:
            if decision.is_promoted and decision.in_force_from <= day and decision.version in fitting:
                if decision.version in stack:
                    del stack[stack.index(decision.version) :]
                stack.append(decision.version)
        return fitting[stack[-2]] if len(stack) > 1 else None


def _midnight(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), dt.UTC)
