"""The MLlib pipeline: shared preparation, then one binary classifier per component, all in one PipelineModel.

pyspark.ml is imported inside functions: it is slow to import and only training and scoring need it.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyspark.sql import DataFrame

from pdm_assets.models.table import WEIGHT, label_of
from pdm_assets.schemas.features import CATEGORICAL_FEATURES, NUMERIC_FEATURES, OBSERVATIONS
from pdm_assets.settings import ModelType

if TYPE_CHECKING:
    from pyspark.ml import PipelineModel

Parameters = Mapping[str, int | float | str | bool]

NULLABLE_FEATURES = tuple(f.name for f in OBSERVATIONS.columns if f.nullable and f.name in NUMERIC_FEATURES)


@dataclass(frozen=True)
class Classifier:
    """A class of pyspark.ml.classification."""

    class_name: str
    needs_scaling: bool = False


MODEL_TYPES: Mapping[ModelType, Classifier] = {
    "random_forest": Classifier("RandomForestClassifier"),
    "decision_tree": Classifier("DecisionTreeClassifier"),
    "gradient_boosted_trees": Classifier("GBTClassifier"),
    # features are scaled by a stage of their own, so that coefficients compare as importances
    "logistic_regression": Classifier("LogisticRegression", needs_scaling=True),
}


def probability_of(component: str) -> str:
    """Column in which the pipeline puts the vector (probability of no failure, of a failure)."""
    return f"probability_{component}"


def fit_pipeline(
    rows: DataFrame,
    *,
    components: Sequence[str],
    features: Sequence[str],
    model_type: ModelType,
    parameters: Parameters,
    seed: int,
) -> "PipelineModel":
    """Fit one classifier per component on rows of the training table with a weight, on those that have a label of it.

    Preparation: unknown numbers become the median (the `_never_replaced` flags say which were), machine
    models become indicators, where one that training never saw is none of them. `features` must not name a
    column without any value. For the same model every time, `rows` must come in one partition and a fixed
    order: bagging and sums depend on both.
    """
    from pyspark import inheritable_thread_target
    from pyspark.ml import Pipeline, PipelineModel

    shared = Pipeline(stages=_preparation(features, MODEL_TYPES[model_type].needs_scaling)).fit(rows)
    needed = [WEIGHT, *(label_of(component) for component in components)]
    # each fit reads its rows several times; a cache would not be recognised under a plan with MLlib stages
    prepared = shared.transform(rows).select("features", *needed).localCheckpoint()
    classifiers = [_classifier(component, model_type, parameters, seed) for component in components]
    # One partition is one task, so the components share the cores.
    with ThreadPoolExecutor(max_workers=len(classifiers)) as pool:
        fit = inheritable_thread_target(rows.sparkSession)(
            lambda classifier: classifier.fit(prepared.dropna(subset=[classifier.getLabelCol()]))
        )
        fitted = list(pool.map(fit, classifiers))
    return PipelineModel([*shared.stages, *fitted])


def importances(pipeline: "PipelineModel", components: Sequence[str], features: Sequence[str]) -> dict[str, dict[str, float]]:
    """How much each feature weighs in each component's classifier: shares of 1, all 0 if it uses none.

    Of trees: Spark's impurity-based importance. Of a regression: the size of the coefficient per standard
    deviation. An indicator is named machine_model=model1.
    """
    from pyspark.ml.classification import LogisticRegressionModel

    indexer: Any = next(stage for stage in pipeline.stages if hasattr(stage, "labelsArray"))
    known = zip(CATEGORICAL_FEATURES, map(list, indexer.labelsArray), strict=True)
    indicators = [f"{name}={value}" for name, values in known for value in values]
    names = [*(name for name in features if name not in CATEGORICAL_FEATURES), *indicators]
    result = {}
    classifiers: list[Any] = pipeline.stages[-len(components) :]
    for component, classifier in zip(components, classifiers, strict=True):
        is_linear = isinstance(classifier, LogisticRegressionModel)
        sizes = abs((classifier.coefficients if is_linear else classifier.featureImportances).toArray())
        total = sizes.sum() or 1.0
        result[component] = {name: float(size / total) for name, size in zip(names, sizes, strict=True)}
    return result


def _preparation(features: Sequence[str], needs_scaling: bool) -> list[Any]:
    from pyspark.ml.feature import Imputer, OneHotEncoder, StandardScaler, StringIndexer, VectorAssembler

    nullable = [name for name in features if name in NULLABLE_FEATURES]
    known = [f"{name}_known" for name in nullable]
    numeric = [f"{name}_known" if name in nullable else name for name in features if name in NUMERIC_FEATURES]
    indexes = [f"{name}_index" for name in CATEGORICAL_FEATURES]
    indicators = [f"{name}_indicators" for name in CATEGORICAL_FEATURES]
    assembled = "unscaled_features" if needs_scaling else "features"
    return [
        *([Imputer(strategy="median", inputCols=nullable, outputCols=known)] if nullable else []),
        StringIndexer(
            inputCols=list(CATEGORICAL_FEATURES),
            outputCols=indexes,
            handleInvalid="keep",
            stringOrderType="alphabetAsc",
        ),
        OneHotEncoder(inputCols=indexes, outputCols=indicators),
        VectorAssembler(inputCols=[*numeric, *indicators], outputCol=assembled),
        *([StandardScaler(inputCol=assembled, outputCol="features", withMean=True)] if needs_scaling else []),
    ]


def _classifier(component: str, model_type: ModelType, parameters: Parameters, seed: int) -> Any:
    from pyspark.ml import classification

    kind = MODEL_TYPES[model_type]
    seeded = {} if model_type == "logistic_regression" else {"seed": seed}  # it draws no random numbers
    classifier = getattr(classification, kind.class_name)(
        featuresCol="features",
        labelCol=label_of(component),
        weightCol=WEIGHT,
        # the other outputs are switched off: a scored row then costs one evaluation, not three
        predictionCol="",
        **{**parameters, **seeded},
    )
    return classifier.setRawPredictionCol("").setProbabilityCol(probability_of(component))
