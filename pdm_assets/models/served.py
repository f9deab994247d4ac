"""A trained pipeline without Spark: NumPy evaluates the stages that Spark saved, in double precision.

The platform scores with it, and it is the code of an exported MLflow folder: the file is copied there as it is, so it imports
nothing of the platform, and Spark's executors get it by value. Tests hold it equal to Spark's own evaluation for every type of
model. A stage of an unknown kind, or set otherwise than the platform sets it, is refused when the folder is loaded.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Frame = dict[str, Any]  # by column, a value a row; of a column of vectors, a row each
Stage = Callable[[Frame], None]  # adds its columns to the frame

SCORED = "scored"
ROWS_AT_ONCE = 512  # go down all trees together: what they need of the processor's cache fits then
LEAST = 1e-6  # as in metrics.py: probabilities of 0 and 1 have no logit


class ServedModelError(ValueError):
    """The folder is damaged, or holds what this code can't evaluate; the text says what."""


def _load_pyfunc(path: str, model_config: Mapping[str, Any]) -> "ServedModel":
    """What MLflow calls with the folder of the sealed model."""
    return ServedModel(Path(path), model_config["readings"], model_config["least_readings"])


class SavedPipeline:
    """A pipeline as PipelineModel.save wrote it.

    Args:
        folder: that it was saved to.

    Raises:
        ServedModelError: if a stage is damaged, or can't be evaluated here.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            uids = _metadata(folder)["paramMap"]["stageUids"]
            folders = [next((folder / "stages").glob(f"*_{uid}")) for uid in uids]
            self._stages = [_stage(stage) for stage in folders]
            self.categories = _categories(folders)
        except (OSError, StopIteration, LookupError, ValueError, pa.ArrowException) as error:
            if isinstance(error, ServedModelError):
                raise
            raise ServedModelError(f"{folder} is no pipeline that can be read: {type(error).__name__} {error}") from error

    def scores(self, columns: Mapping[str, Any], components: Sequence[str]) -> dict[str, Floats]:
        """The uncalibrated probability of a failure, by component that the pipeline learnt.

        Args:
            columns: NumPy arrays by column, a value a row; missing numbers are NaN.
            components: of those that are wanted.

        Raises:
            UnknownValue: if a value is missing that the pipeline does not fill.
        """
        frame: Frame = dict(columns)
        for stage in self._stages:
            stage(frame)
        return {component: frame[f"probability_{component}"] for component in components}


class UnknownValue(ValueError):
    """A value is missing that must be known; the text names column and rows."""


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
        self.pipeline = SavedPipeline(folder / "pipeline")

    def predict(self, observations: "pd.DataFrame", params: Mapping[str, Any] | None = None) -> "pd.DataFrame":
        """One row per observation, in their order.

        Columns: of each component probability, threshold and is_alert (probability >= threshold), model_version, and status:
        "scored", or why not. What is not scored has null for a probability and no alert.

        Raises:
            MlflowException: if a value is null that must be known; servers answer with 400.
        """
        import pandas as pd
        from mlflow.exceptions import MlflowException

        readings = observations[self.readings].to_numpy(dtype=np.float64)
        is_scorable = readings >= self.least_readings
        scorable = observations[is_scorable]
        constants = self.card["constant_probabilities"]
        try:
            if np.isnan(readings).any():
                raise _unknown(self.readings, np.isnan(readings))
            columns = {str(name): scorable[name].to_numpy() for name in scorable.columns}
            scores = self.pipeline.scores(columns, [c for c in self.card["thresholds"] if c not in constants])
        except UnknownValue as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        risks: dict[str, Any] = {}
        for component, threshold in self.card["thresholds"].items():
            probability = np.full(len(observations), np.nan)
            score = scores[component] if component in scores else np.full(len(scorable), constants[component])
            platt = self.card["calibration"].get(component)
            probability[is_scorable] = score if platt is None else calibrated(score, **platt)
            known = pd.Series(probability, dtype=object)  # JSON knows no NaN
            risks[f"{component}_probability"] = known.where(is_scorable, None)
            risks[f"{component}_threshold"] = threshold
            risks[f"{component}_is_alert"] = probability >= threshold
        few = f"not scored: fewer than {self.least_readings} readings ({self.readings})"
        risks["status"] = np.where(is_scorable, SCORED, few)
        risks["model_version"] = self.card["version"]
        return pd.DataFrame(risks, index=range(len(observations)))


class BatchScorer:
    """Scores Arrow batches, for `DataFrame.mapInArrow`: executors get it by value, with the pipeline.

    Args:
        pipeline: that scores.
        calibration: slope and intercept by component; one without is left as it is.
        components: those that the pipeline learnt.
        key: columns that are passed on.
    """

    def __init__(
        self,
        pipeline: SavedPipeline,
        calibration: Mapping[str, tuple[float, float]],
        components: Sequence[str],
        key: Sequence[str],
    ) -> None:
        self.pipeline, self.calibration, self.components, self.key = pipeline, dict(calibration), list(components), list(key)

    def __call__(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Of each row its key and a probability by component, in a column of that name."""
        for batch in batches:
            scores = self.pipeline.scores(numpy_columns(batch), self.components)
            risks = [
                calibrated(scores[c], *self.calibration[c]) if c in self.calibration else scores[c] for c in self.components
            ]
            columns = [batch.column(batch.schema.get_field_index(name)) for name in self.key] + [
                pa.array(risk) for risk in risks
            ]
            yield pa.RecordBatch.from_arrays(columns, names=[*self.key, *self.components])


def numpy_columns(rows: "pa.Table | pa.RecordBatch") -> dict[str, Any]:
    """The columns as `SavedPipeline.scores` takes them."""
    named = zip(rows.schema.names, rows.columns, strict=True)
    return {
        name: column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False)
        for name, column in named
    }


def calibrated(score: Floats, slope: float, intercept: float) -> Floats:
    """Probabilities of scores: 1 / (1 + exp(-(slope logit(score) + intercept))), Platt 1999."""
    kept = np.clip(score, LEAST, 1 - LEAST)
    return _logistic(np.log(kept / (1 - kept)) * slope + intercept)


def _logistic(margin: Floats) -> Floats:
    with np.errstate(over="ignore"):  # a margin beyond -709 has the probability 0
        probability: Floats = 1 / (1 + np.exp(-margin))
    return probability


def _unknown(column: str, is_null: NDArray[np.bool_]) -> UnknownValue:
    rows = np.flatnonzero(is_null)[:5].tolist()
    return UnknownValue(f"{column} is null in {int(is_null.sum())} of the observations (the first at {rows}): it must be known")


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


def _table(folder: Path) -> pa.Table:
    return pa.concat_tables([pq.ParquetFile(part).read() for part in sorted(folder.glob("part-*.parquet"))])


def _rows(folder: Path) -> list[dict[str, Any]]:
    return _table(folder).to_pylist()


def _categories(stages: Sequence[Path]) -> dict[str, list[str]]:
    """The values of each categorical feature that training knew."""
    indexer = next(stage for stage in stages if _metadata(stage)["class"].endswith(".StringIndexerModel"))
    names = _metadata(indexer)["paramMap"]["inputCols"]
    return dict(zip(names, _rows(indexer / "data")[0]["labelsArray"], strict=True))


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
                raise _unknown(name, np.isnan(column))
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
    """The nodes of all trees in one array each, so that all rows go down all trees at once.

    The children of a node stand side by side, the lower one first; a leaf leads to itself.
    """

    def __init__(self, saved: _Saved, nodes: pa.Table, trees: Any) -> None:
        column = {name: nodes[name].combine_chunks() for name in nodes.column_names}
        order = np.lexsort((column["id"].to_numpy(), trees))
        trees = trees[order]
        column = {name: values.take(pa.array(order)) for name, values in column.items()}
        self.roots = np.flatnonzero(np.r_[True, trees[1:] != trees[:-1]])
        start = self.roots[np.cumsum(np.r_[False, trees[1:] != trees[:-1]])]
        is_leaf = column["leftChild"].to_numpy() < 0
        lower, upper = (start + column[side].to_numpy() for side in ("leftChild", "rightChild"))
        self.feature, self.threshold, swapped = _splits(saved, column["split"], is_leaf)
        lower, upper = np.where(swapped, upper, lower), np.where(swapped, lower, upper)
        self.prediction = column["prediction"].to_numpy()
        stats = column["impurityStats"]
        self._stats = stats.flatten().to_numpy().reshape(len(stats), -1)
        self._lay_out(lower, upper, is_leaf)

    def _lay_out(self, lower: NDArray[np.intp], upper: NDArray[np.intp], is_leaf: NDArray[np.bool_]) -> None:
        """Put the nodes in the order of their depth, siblings side by side."""
        levels = [self.roots]
        while len(inner := levels[-1][~is_leaf[levels[-1]]]):
            levels.append(np.column_stack([lower[inner], upper[inner]]).ravel())
        order = np.concatenate(levels)
        place = np.empty(len(order), dtype=np.intp)
        place[order] = np.arange(len(order))
        self.depth = len(levels) - 1
        self.roots = place[self.roots]
        self.first_child = np.where(is_leaf, place, place[np.where(is_leaf, 0, lower)])[order]
        self.feature, self.threshold = self.feature[order], self.threshold[order]
        self.prediction, self._stats = self.prediction[order], self._stats[order]

    def each(self, features: Floats, value: Floats) -> Any:
        """Of each row the values of the leaves that it comes to, by tree; some rows at a time.

        Yields:
            the place of the first of the rows, and an array of trees by rows.
        """
        for first in range(0, len(features), ROWS_AT_ONCE):
            rows = np.ascontiguousarray(features[first : first + ROWS_AT_ONCE].T)
            count = rows.shape[1]
            flat, offset, row = rows.ravel(), self.feature * count, np.arange(count)
            at = np.broadcast_to(self.roots[:, None], (len(self.roots), count))
            for _ in range(self.depth):
                found = np.take(flat, np.take(offset, at) + row)
                at = np.take(self.first_child, at) + (found > np.take(self.threshold, at))
            yield first, np.take(value, at)

    def failing(self) -> Floats:
        """By node, the share of its training rows that fail."""
        if self._stats.shape[1] != 2:
            raise ServedModelError("a tree tells more than two classes apart")
        total = self._stats.sum(axis=1)
        return np.divide(self._stats[:, 1], total, out=np.zeros_like(total), where=total != 0)

    def mean(self, features: Floats, value: Floats) -> Floats:
        """Of each row the mean of its leaves' values, summed in the order of the trees as Spark does."""
        found = np.empty(len(features))
        for first, values in self.each(features, value):
            found[first : first + values.shape[1]] = values.sum(axis=0) / len(self.roots)
        return found


def _splits(
    saved: _Saved, splits: pa.StructArray, is_leaf: NDArray[np.bool_]
) -> tuple[NDArray[np.intp], Floats, NDArray[np.bool_]]:
    """Feature and threshold of each node, and whether its children are swapped: values up to the threshold go to the second."""
    feature = np.where(is_leaf, 0, splits.field("featureIndex").to_numpy(zero_copy_only=False)).astype(np.intp)
    categories = np.where(is_leaf, -1, splits.field("numCategories").to_numpy(zero_copy_only=False))
    lists = splits.field("leftCategoriesOrThreshold")
    lengths = np.where(is_leaf, 0, lists.value_lengths().fill_null(0).to_numpy(zero_copy_only=False))
    values, offsets = lists.values.to_numpy(), lists.offsets.to_numpy()
    if unknown := set(categories[(categories != -1) & (categories != 2)]):
        raise ServedModelError(f"{saved.folder.name} splits by {min(unknown)} categories; only 2 can be served")
    if (lengths[~is_leaf] != 1).any():
        raise ServedModelError(f"{saved.folder.name} has a split of several values; only one can be served")
    threshold = np.full(len(is_leaf), np.inf)
    threshold[~is_leaf] = values[offsets[:-1][~is_leaf]]
    of_indicator = categories == 2
    swapped = of_indicator & (threshold == 1.0)
    threshold[of_indicator] = 0.5  # an indicator is 0 or 1
    return feature, threshold, swapped


def _forest_of(saved: _Saved) -> _Trees:
    rows = _table(saved.folder / "data")
    if "nodeData" not in rows.column_names:  # a single tree
        return _Trees(saved, rows, np.zeros(rows.num_rows, dtype=np.int64))
    data = rows["nodeData"].combine_chunks()
    nodes = pa.Table.from_arrays(data.flatten(), names=[data.type.field(n).name for n in range(data.type.num_fields)])
    return _Trees(saved, nodes, rows["treeID"].to_numpy())


def _forest(saved: _Saved) -> Stage:
    """A forest, or a single tree."""
    trees = _forest_of(saved)
    failing = trees.failing()

    def vote(frame: Frame) -> None:
        frame[saved.params["probabilityCol"]] = trees.mean(frame[saved.params["featuresCol"]], failing)

    return vote


def _boosted(saved: _Saved) -> Stage:
    trees = _forest_of(saved)
    weight_of = {}
    for row in _rows(saved.folder / "treesMetadata"):
        tree, _, weight = row.values()  # Spark 4.2 names them _1 to _3, earlier ones otherwise
        weight_of[tree] = weight
    weights = np.array([weight_of[tree] for tree in sorted(weight_of)])

    def boost(frame: Frame) -> None:
        features = frame[saved.params["featuresCol"]]
        margin = np.empty(len(features))
        for first, values in trees.each(features, trees.prediction):
            margin[first : first + values.shape[1]] = weights @ values
        frame[saved.params["probabilityCol"]] = _logistic(2 * margin)  # Spark's loss has this factor

    return boost


STAGES: Mapping[str, Callable[[_Saved], Stage]] = {
    "ImputerModel": _imputer,
    "StringIndexerModel": _indexer,
    "OneHotEncoderModel": _encoder,
    "VectorAssembler": _assembler,
    "StandardScalerModel": _scaler,
    "LogisticRegressionModel": _regression,
    "DecisionTreeClassificationModel": _forest,
    "RandomForestClassificationModel": _forest,
    "GBTClassificationModel": _boosted,
}
