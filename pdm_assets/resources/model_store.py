"""Where trained models live: saved pipelines with their cards, the registry of versions, and which one is in force on a day."""

import datetime as dt
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from pdm_assets.models.card import ModelCard
from pdm_assets.resources.delta_io import days_of, describe, mark_days
from pdm_assets.resources.lake import Lake
from pdm_assets.schemas.features import FAILURE_MODEL, REGISTRY
from pdm_assets.schemas.table import DATE
from pdm_assets.settings import Settings

if TYPE_CHECKING:
    from pyspark.ml import PipelineModel

    from pdm_assets.models.training import TrainedModel


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
    path: str

    @property
    def age_order(self) -> tuple[dt.date, dt.datetime]:
        """Newest knowledge last."""
        return self.cutoff, self.trained_at


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
        mark_days(
            context,
            {day: {"model_version": m.version or "none", "status": m.status} for day, m in obj.items()},
        )

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

    def save(self, trained: "TrainedModel", run_id: str) -> None:
        """Keep a trained model: folder first, registry row last, so that what is registered is whole."""
        card = trained.card
        folder = Path(self.root) / card.version
        partial = folder.with_name(f".{card.version}.part")
        shutil.rmtree(partial, ignore_errors=True)
        trained.pipeline.write().overwrite().save(str(partial / "pipeline"))
        (partial / "card.json").write_text(card.to_json())
        partial.replace(folder)
        row = (
            card.version,
            card.model_type,
            card.horizon_hours,
            _midnight(card.cutoff),
            dt.datetime.now(dt.UTC),
            card.version,
            json.dumps(json.loads(card.to_json())),
        )
        frame = self.lake.spark.spark_session.createDataFrame([row], REGISTRY.struct)
        self.lake.append(REGISTRY, frame, {"run_id": run_id, "model_version": card.version})

    def load(self, version: str) -> tuple["PipelineModel", ModelCard]:
        """The saved pipeline of a version and its card.

        Raises:
            NoSuchModel: if the version is not registered or its folder is gone.
        """
        from pyspark.ml import PipelineModel

        self.lake.spark.spark_session  # noqa: B018 - MLlib's reader takes the active session
        known = {model.version for model in self.registered()}
        folder = Path(self.root) / version
        if version not in known:
            raise NoSuchModel(f"no model {version!r}. Registered: {', '.join(sorted(known)) or 'none'}")
        if not (folder / "card.json").exists():
            raise NoSuchModel(f"model {version} is registered, but its folder {folder} is gone: restore it from a backup")
        card = ModelCard.from_json((folder / "card.json").read_text())
        return PipelineModel.load(str(folder / "pipeline")), card

    def registered(self) -> list[Registered]:
        """Every version, the newest knowledge last."""
        if not self.lake.exists(REGISTRY):
            return []
        rows = self.lake.rows(
            REGISTRY,
            columns=["model_version", "model_type", "horizon_hours", "cutoff_at", "trained_at", "path"],
        )
        models = [
            Registered(
                r["model_version"],
                r["model_type"],
                r["horizon_hours"],
                r["cutoff_at"].date(),
                r["trained_at"],
                r["path"],
            )
            for r in rows
        ]
        return sorted(models, key=lambda model: model.age_order)

    def in_force(self, day: dt.date, models: Sequence[Registered]) -> Registered | None:
        """The newest of the models that knew nothing of the day, for this store's horizon."""
        fitting = [m for m in models if m.cutoff <= day and m.horizon_hours == self.horizon_hours]
        return max(fitting, key=lambda m: m.age_order, default=None)


def _midnight(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), dt.UTC)
