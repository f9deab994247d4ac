"""A model as a folder in MLflow's format, which servers and Spark sessions score with that know nothing of this platform.

It holds the sealed model as it is in the store and one module of ours (`models/served.py`) that evaluates it without Spark.
Nothing in it is pickled.
"""

import hashlib
import logging
import os
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pyspark.sql import types as T

from pdm_assets.models.card import ModelCard
from pdm_assets.models.table import LEAST_READINGS
from pdm_assets.resources import model_folder
from pdm_assets.resources.model_folder import ModelFolderError
from pdm_assets.schemas.features import CATEGORICAL_FEATURES, OBSERVATIONS, READINGS_COUNT

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.models import ModelSignature

CODE = Path(__file__).parents[1] / "models" / "served.py"
QUERY = "score.sql"
# Skinny has the server and its framework; pyarrow reads what Spark saved. The model needs no pyspark.
REQUIREMENTS = ("mlflow-skinny", "numpy", "pandas", "pyarrow")
# of a column's type, its names in MLflow and pandas, and a value for the example where the card knows none
TYPES: Mapping[T.DataType, tuple[str, str, Any]] = {
    T.DoubleType(): ("double", "float64", 0.0),
    T.IntegerType(): ("integer", "int32", 0),
    T.BooleanType(): ("boolean", "bool", False),
    T.StringType(): ("string", "object", ""),
}
OF_COMPONENT = (("probability", "double"), ("threshold", "double"), ("is_alert", "boolean"))
OF_ROW = (("status", "string"), ("model_version", "string"))


def write(folder: Path, target: Path) -> None:
    """Make a new folder in MLflow's format of a sealed model, whole or not at all.

    Raises:
        ModelFolderError: if the model is not as it was sealed, the target is there already or can't be written, or MLflow is
            not installed.
    """
    if target.exists() or target.is_symlink():
        raise ModelFolderError(f"{target} is there already: name a new folder, or remove it first")
    model_folder.check(folder)
    partial = target.with_name(f".{target.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _save(folder, partial)
        partial.rename(target)
    except ImportError as error:
        raise ModelFolderError(
            f"MLflow can't be imported ({error}): run `make setup` in the checkout, or "
            "`.venv/bin/uv pip install -e '.[mlflow]'`"
        ) from error
    except OSError as error:
        raise ModelFolderError(f"{target} can't be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _save(folder: Path, partial: Path) -> None:
    # Else a uv.lock in the working directory is copied into the model, and MLflow's makers are told of each model saved.
    os.environ.setdefault("MLFLOW_UV_AUTO_DETECT", "false")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import pyfunc

    card = ModelCard.from_json((folder / "card.json").read_text())
    inputs = _inputs(card)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    with TemporaryDirectory() as scratch:
        # Python loads a module once a process: models of two releases, loaded by one, must not share their code.
        module = f"pdm_served_model_{hashlib.sha256(CODE.read_bytes()).hexdigest()[:8]}"
        code = Path(shutil.copyfile(CODE, Path(scratch) / f"{module}.py"))
        pyfunc.save_model(
            str(partial),
            loader_module=module,
            data_path=str(folder),
            code_paths=[str(code)],
            signature=_signature(card, inputs),
            input_example=_example(card, inputs),
            pip_requirements=[f"{name}=={version(name)}" for name in REQUIREMENTS],
            model_config={"readings": READINGS_COUNT, "least_readings": LEAST_READINGS},
            metadata={"model_version": card.version, "model_type": card.model_type, "horizon_hours": card.horizon_hours},
        )
    (partial / QUERY).write_text(query(card))


def _inputs(card: ModelCard) -> list[T.StructField]:
    """Columns of features/observations that the model reads, and that which says whether an observation is scored."""
    names = {*card.features, *CATEGORICAL_FEATURES, READINGS_COUNT}
    return [field for field in OBSERVATIONS.columns if field.name in names]


def _outputs(card: ModelCard) -> list[tuple[str, str]]:
    of_components = [(f"{component}_{name}", kind) for component in card.thresholds for name, kind in OF_COMPONENT]
    return [*of_components, *OF_ROW]


def _signature(card: ModelCard, inputs: list[T.StructField]) -> "ModelSignature":
    """Every column must be there, those that may be null too: what is left out by mistake would be scored as the median."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    return ModelSignature(
        Schema([ColSpec(TYPES[field.dataType][0], field.name) for field in inputs]),
        Schema([ColSpec(kind, name) for name, kind in _outputs(card)]),
    )


def _example(card: ModelCard, inputs: list[T.StructField]) -> "pd.DataFrame":
    """An observation of usual values: no machine's own rows leave the plant."""
    import pandas as pd

    values = {field.name: card.usual.get(field.name, TYPES[field.dataType][2]) for field in inputs}
    indicators = [name.split("=", 1) for shares in card.importances.values() for name in shares if "=" in name]
    values |= {**{name: value for name, value in indicators}, READINGS_COUNT: 2 * LEAST_READINGS}
    return pd.DataFrame([values]).astype({field.name: TYPES[field.dataType][1] for field in inputs})


def query(card: ModelCard) -> str:
    """SQL of Databricks that scores a day's observations by an endpoint, with columns as in scores/component_risk."""
    sql_types = {"double": "DOUBLE", "boolean": "BOOLEAN", "string": "STRING"}
    request = ",\n".join(f"        '{field.name}', {field.name}" for field in _inputs(card))
    answer = ", ".join(f"{name}: {sql_types[kind]}" for name, kind in _outputs(card))
    names = [name for name, _ in OF_COMPONENT]
    risks = ",\n".join(
        f"    '{component}', " + ", ".join(f"risk.{component}_{name}" for name in names) for component in card.thresholds
    )
    return f"""\
-- Put in the endpoint, the table and the day. What has too few readings is left out, as in scores/component_risk.
SELECT machine_id, observed_at, component, probability, threshold, is_alert, risk.model_version
FROM (
  SELECT machine_id, observed_at, ai_query(
      'pdm-failure-model',
      named_struct(
{request}
      ),
      returnType => 'STRUCT<{answer}>'
    ) AS risk
  FROM main.pdm.features_observations
  WHERE date = DATE'2026-11-20'
)
LATERAL VIEW stack({len(card.thresholds)},
{risks}
  ) risks AS component, probability, threshold, is_alert
WHERE risk.status = 'scored'
"""
