"""A trained model without Spark: the code of an exported MLflow folder, for wherever that is served.

The file is copied into the folder as it is, so it imports nothing of the platform. NumPy evaluates the stages that Spark saved,
in double precision; a test holds it equal to `scoring.score` for every type of model. A stage of a kind that it does not know,
or set otherwise than the platform sets it, is refused when the folder is loaded.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from mlflow.exceptions import MlflowException
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Frame = dict[str, Any]  # by column, a value a row; of a column of vectors, a row each
Stage = Callable[[Frame], None]  # adds its columns to the frame

SCORED = "scored"
LEAST = 1e-6  # as in metrics.py: probabilities of 0 and 1 have no logit


class ServedModelError(ValueError):
    """The folder is damaged, or holds what this code can't evaluate; the text says what."""


def _load_pyfunc(path: str, model_config: Mapping[str, Any]) -> "ServedModel":
    """What MLflow calls with the folder of the sealed model."""
    return ServedModel(Path(path), model_config["readings"], model_config["least_readings"])


class ServedModel:
    """Risks of observations by a sealed model.

    Args:
        folder: the sealed model: pipeline, card and checksums.
        readings: column that says how many readings the look-back of an observation had.
        least_readings: an observation with fewer is not scored.

    Raises:
        ServedModelError: if the folder is not as it was sealed, or holds what can't be evaluated here.
    """

    def __init__(self, folder: Path, readings: str, least_readings: int) -> None:
        _check(folder)
        self.readings, self.least_readings = readings, least_readings
        self.card: dict[str, Any] = json.loads((folder / "card.json").read_text())
        pipeline = folder / "pipeline"
        uids = _metadata(pipeline)["paramMap"]["stageUids"]
        self.stages = [_stage(next((pipeline / "stages").glob(f"*_{uid}"))) for uid in uids]

    def predict(self, observations: pd.DataFrame, params: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """One row per observation, in their order.

        Columns: of each component probability, threshold and is_alert (probability >= threshold), model_version, and status:
        "scored", or why not. What is not scored has null for a probability and no alert.

        Raises:
            MlflowException: if a value is null that must be known; servers answer with 400.
        """
        readings = observations[self.readings].to_numpy(dtype=np.float64)
        if np.isnan(readings).any():
            raise _refused(self.readings, np.isnan(readings))
        is_scorable = readings >= self.least_readings
        scorable = observations[is_scorable]
        frame: Frame = {str(name): scorable[name].to_numpy() for name in scorable.columns}
        for stage in self.stages:
            stage(frame)
        risks: dict[str, Any] = {}
        for component, threshold in self.card["thresholds"].items():
            probability = np.full(len(observations), np.nan)
            probability[is_scorable] = self._probability(component, frame, len(scorable))
            known = pd.Series(probability, dtype=object)  # JSON knows no NaN
            risks[f"{component}_probability"] = known.where(is_scorable, None)
            risks[f"{component}_threshold"] = threshold
            risks[f"{component}_is_alert"] = probability >= threshold
        few = f"not scored: fewer than {self.least_readings} readings ({self.readings})"
        risks["status"] = np.where(is_scorable, SCORED, few)
        risks["model_version"] = self.card["version"]
        return pd.DataFrame(risks, index=range(len(observations)))

    def _probability(self, component: str, frame: Frame, rows: int) -> Floats:
        constant = self.card["constant_probabilities"].get(component)
        score = np.full(rows, constant) if constant is not None else frame[f"probability_{component}"]
        platt = self.card["calibration"].get(component)
        if platt is None:
            return score
        kept = np.clip(score, LEAST, 1 - LEAST)
        return _logistic(np.log(kept / (1 - kept)) * platt["slope"] + platt["intercept"])


def _logistic(margin: Floats) -> Floats:
    with np.errstate(over="ignore"):  # a margin beyond -709 has the probability 0
        probability: Floats = 1 / (1 + np.exp(-margin))
    return probability


def _refused(column: str, is_null: NDArray[np.bool_]) -> MlflowException:
    rows = np.flatnonzero(is_null)[:5].tolist()
    return MlflowException.invalid_parameter_value(
        f"{column} is null in {int(is_null.sum())} of the observations (the first at {rows}): it must be known"
    )


def _check(folder: Path) -> None:
    """Compare every file with the checksums that the platform sealed the folder with."""
    if not (folder / "SHA256SUMS").is_file():
        raise ServedModelError(f"{folder} has no SHA256SUMS: it was never written whole")
    sums = dict(line.split("  ", 1)[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {"SHA256SUMS"}
    if found - sums.keys():  # Spark's format is of any file in a folder: one more would be read
        raise ServedModelError(f"{folder} holds {min(found - sums.keys())}, which is not of the model")
    for name, digest in sums.items():
        if not (folder / name).is_file():
            raise ServedModelError(f"{folder} lacks {name}")
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
            raise ServedModelError(f"{folder / name} is not what was exported: its checksum differs")


def _metadata(stage: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(next((stage / "metadata").glob("part-*")).read_text().split("\n", 1)[0])
    return found


def _rows(folder: Path) -> list[dict[str, Any]]:
    return [row for part in sorted(folder.glob("part-*.parquet")) for row in pq.ParquetFile(part).read().to_pylist()]


@dataclass(frozen=True)
class _Saved:
    """A stage as Spark saved it."""

    folder: Path
    params: Mapping[str, Any]

    @property
    def row(self) -> dict[str, Any]:
        return _rows(self.folder / "data")[0]

    def must_be(self, name: str, value: object) -> None:
        if self.params[name] != value:
            raise ServedModelError(f"{self.folder.name} has {name}={self.params[name]}; only {value} can be served")


def _stage(folder: Path) -> Stage:
    metadata = _metadata(folder)
    kind = metadata["class"].rsplit(".", 1)[1]
    if kind not in STAGES:
        raise ServedModelError(f"{folder.name} is a {kind}; only {', '.join(STAGES)} can be served")
    return STAGES[kind](_Saved(folder, {**metadata["defaultParamMap"], **metadata["paramMap"]}))


def _imputer(saved: _Saved) -> Stage:
    known = saved.row

    def impute(frame: Frame) -> None:
        for name, output in zip(saved.params["inputCols"], saved.params["outputCols"], strict=True):
            values = frame[name].astype(np.float64)
            frame[output] = np.where(np.isnan(values), known[name], values)

    return impute


def _indexer(saved: _Saved) -> Stage:
    saved.must_be("handleInvalid", "keep")
    labels: list[list[str]] = saved.row["labelsArray"]

    def index(frame: Frame) -> None:
        for name, output, its in zip(saved.params["inputCols"], saved.params["outputCols"], labels, strict=True):
            number = {label: float(n) for n, label in enumerate(its)}
            frame[output] = np.array([number.get(value, float(len(its))) for value in frame[name]], dtype=np.float64)

    return index


def _encoder(saved: _Saved) -> Stage:
    saved.must_be("dropLast", True)
    sizes: list[int] = saved.row["categorySizes"]

    def encode(frame: Frame) -> None:
        for name, output, size in zip(saved.params["inputCols"], saved.params["outputCols"], sizes, strict=True):
            frame[output] = (frame[name][:, None] == np.arange(size - 1)).astype(np.float64)  # the last is none of them

    return encode


def _assembler(saved: _Saved) -> Stage:
    def assemble(frame: Frame) -> None:
        columns = []
        for name in saved.params["inputCols"]:
            column = frame[name].astype(np.float64)
            if np.isnan(column).any():
                raise _refused(name, np.isnan(column))
            columns.append(column if column.ndim == 2 else column[:, None])
        frame[saved.params["outputCol"]] = np.hstack(columns)

    return assemble


def _scaler(saved: _Saved) -> Stage:
    saved.must_be("withMean", True)
    saved.must_be("withStd", True)
    mean, std = (_dense(saved.row[name]) for name in ("mean", "std"))
    factor = np.divide(1.0, std, out=np.zeros_like(std), where=std != 0)  # what never varied says nothing

    def scale(frame: Frame) -> None:
        frame[saved.params["outputCol"]] = (frame[saved.params["inputCol"]] - mean) * factor

    return scale


def _dense(vector: Mapping[str, Any]) -> Floats:
    """A vector, or a matrix of one row, as Spark writes them: type 0 is sparse, 1 is dense."""
    if vector["type"] == 1:
        return np.array(vector["values"], dtype=np.float64)
    found = np.zeros(vector["size"] if "size" in vector else vector["numCols"])
    found[_places(vector)] = vector["values"]
    return found


def _places(vector: Mapping[str, Any]) -> Any:
    if "size" in vector:
        return vector["indices"]
    if vector["isTransposed"]:  # by row, of which there is one
        return vector["rowIndices"]
    return np.repeat(np.arange(vector["numCols"]), np.diff(vector["colPtrs"]))


def _regression(saved: _Saved) -> Stage:
    row = saved.row
    if row["isMultinomial"] or row["coefficientMatrix"]["numRows"] != 1:
        raise ServedModelError(f"{saved.folder.name} tells more than two classes apart")
    coefficients, intercept = _dense(row["coefficientMatrix"]), _dense(row["interceptVector"])[0]

    def regress(frame: Frame) -> None:
        margin = frame[saved.params["featuresCol"]] @ coefficients + intercept
        frame[saved.params["probabilityCol"]] = _logistic(margin)

    return regress


class _Trees:
    """The nodes of all trees in one array each, so that all rows go down all trees at once."""

    def __init__(self, saved: _Saved, nodes: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
        ordered = sorted(nodes, key=lambda node: (node[0], node[1]["id"]))
        trees = [tree for tree, _ in ordered]
        self.nodes = [node for _, node in ordered]
        self.roots = np.array([n for n, tree in enumerate(trees) if n == 0 or trees[n - 1] != tree])
        start = {trees[root]: int(root) for root in self.roots}
        self.feature = np.zeros(len(ordered), dtype=np.intp)
        self.threshold = np.zeros(len(ordered))
        itself = np.arange(len(ordered))
        self.lower, self.upper = itself.copy(), itself.copy()  # a leaf leads to itself
        self.depth = 0
        deep = np.zeros(len(ordered), dtype=int)
        for n, (tree, node) in enumerate(ordered):
            if node["leftChild"] < 0:
                continue
            lower, upper = start[tree] + node["leftChild"], start[tree] + node["rightChild"]
            split = node["split"]
            self.feature[n] = split["featureIndex"]
            if split["numCategories"] == -1:
                (self.threshold[n],) = split["leftCategoriesOrThreshold"]
            elif split["numCategories"] == 2 and split["leftCategoriesOrThreshold"] in ([0.0], [1.0]):
                self.threshold[n] = 0.5  # an indicator is 0 or 1
                if split["leftCategoriesOrThreshold"] == [1.0]:
                    lower, upper = upper, lower
            else:
                raise ServedModelError(
                    f"{saved.folder.name} splits by {split['numCategories']} categories; only 2 can be served"
                )
            self.lower[n], self.upper[n] = lower, upper
            deep[lower] = deep[upper] = deep[n] + 1  # parents come before their children
            self.depth = max(self.depth, int(deep[n]) + 1)

    def leaves(self, features: Floats) -> NDArray[np.intp]:
        """The number of the leaf, by row and tree."""
        at = np.broadcast_to(self.roots, (len(features), len(self.roots)))
        rows = np.arange(len(features))[:, None]
        for _ in range(self.depth):
            at = np.where(features[rows, self.feature[at]] <= self.threshold[at], self.lower[at], self.upper[at])
        return at

    def failing(self) -> Floats:
        """By node, the share of its training rows that fail."""
        stats = np.array([node["impurityStats"] for node in self.nodes], dtype=np.float64)
        if stats.shape[1] != 2:
            raise ServedModelError("a tree tells more than two classes apart")
        total = stats.sum(axis=1)
        return np.divide(stats[:, 1], total, out=np.zeros_like(total), where=total != 0)


def _tree(saved: _Saved) -> Stage:
    trees = _Trees(saved, [(0, row) for row in _rows(saved.folder / "data")])
    failing = trees.failing()

    def walk(frame: Frame) -> None:
        frame[saved.params["probabilityCol"]] = failing[trees.leaves(frame[saved.params["featuresCol"]])[:, 0]]

    return walk


def _forest(saved: _Saved) -> Stage:
    trees = _Trees(saved, [(row["treeID"], row["nodeData"]) for row in _rows(saved.folder / "data")])
    failing = trees.failing()

    def vote(frame: Frame) -> None:
        votes = failing[trees.leaves(frame[saved.params["featuresCol"]])]
        frame[saved.params["probabilityCol"]] = votes.sum(axis=1) / len(trees.roots)

    return vote


def _boosted(saved: _Saved) -> Stage:
    trees = _Trees(saved, [(row["treeID"], row["nodeData"]) for row in _rows(saved.folder / "data")])
    prediction = np.array([node["prediction"] for node in trees.nodes])
    weight_of = {}
    for row in _rows(saved.folder / "treesMetadata"):
        tree, _, weight = row.values()  # Spark 4.2 names them _1 to _3, earlier ones otherwise
        weight_of[tree] = weight
    weights = np.array([weight_of[tree] for tree in sorted(weight_of)])

    def boost(frame: Frame) -> None:
        margin = prediction[trees.leaves(frame[saved.params["featuresCol"]])] @ weights
        frame[saved.params["probabilityCol"]] = _logistic(2 * margin)  # Spark's loss has this factor

    return boost


STAGES: Mapping[str, Callable[[_Saved], Stage]] = {
    "ImputerModel": _imputer,
    "StringIndexerModel": _indexer,
    "OneHotEncoderModel": _encoder,
    "VectorAssembler": _assembler,
    "StandardScalerModel": _scaler,
    "LogisticRegressionModel": _regression,
    "DecisionTreeClassificationModel": _tree,
    "RandomForestClassificationModel": _forest,
    "GBTClassificationModel": _boosted,
}
