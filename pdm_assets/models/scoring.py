"""Component risks of observations by a trained pipeline."""

from pyspark import cloudpickle
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql import types as T

from pdm_assets.models import served
from pdm_assets.models.card import ModelCard
from pdm_assets.models.served import BatchScorer, SavedPipeline
from pdm_assets.models.table import scorable
from pdm_assets.schemas.features import OBSERVATION_KEY, OBSERVATIONS
from pdm_assets.schemas.raw import COMPONENTS

# Executors of a Spark need NumPy and PyArrow, but not this package: what runs there goes along with the plan.
cloudpickle.register_pickle_by_value(served)


def score(observations: DataFrame, pipeline: SavedPipeline, card: ModelCard) -> DataFrame:
    """One row per scorable observation and component, in the columns of scores/component_risk.

    Columns: key, component, probability, threshold, is_alert (probability >= threshold), model_version. A
    component that the model could not learn has the constant probability of its card. Labels are not needed.
    """
    learnt = [component for component in COMPONENTS if component not in card.constant_probabilities]
    platt = {component: (its.slope, its.intercept) for component, its in card.calibration.items()}
    key = [field for field in OBSERVATIONS.columns if field.name in OBSERVATION_KEY]
    columns = T.StructType([*key, *(T.StructField(component, T.DoubleType(), nullable=False) for component in learnt)])
    risks = F.array(
        *(
            F.struct(
                F.lit(component).alias("component"),
                _probability(component, card).alias("probability"),
                F.lit(card.thresholds[component]).alias("threshold"),
            )
            for component in COMPONENTS
        )
    )
    return (
        scorable(observations)
        .select(*OBSERVATION_KEY, *card.features)
        .mapInArrow(BatchScorer(pipeline, platt, learnt, OBSERVATION_KEY), columns)
        .select(*OBSERVATION_KEY, F.inline(risks))
        .withColumn("is_alert", F.col("probability") >= F.col("threshold"))
        .withColumn("model_version", F.lit(card.version))
    )


def _probability(component: str, card: ModelCard) -> Column:
    constant = card.constant_probabilities.get(component)
    return F.col(component) if constant is None else F.lit(constant)
