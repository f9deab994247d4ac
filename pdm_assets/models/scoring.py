"""Component risks of observations by a trained pipeline."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from pdm_assets.models.card import ModelCard
from pdm_assets.models.pipeline import probability_of
from pdm_assets.models.table import scorable
from pdm_assets.schemas.features import OBSERVATION_KEY
from pdm_assets.schemas.raw import COMPONENTS

if TYPE_CHECKING:
    from pyspark.ml import PipelineModel


def score(observations: DataFrame, pipeline: "PipelineModel", card: ModelCard) -> DataFrame:
    """One row per scorable observation and component, in the columns of scores/component_risk.

    Columns: key, component, probability, threshold, is_alert (probability >= threshold), model_version. A
    component that the model could not learn has the constant probability of its card. Labels are not needed.
    """
    risks = F.array(
        *(
            F.struct(
                F.lit(component).alias("component"),
                probability(component, card).alias("probability"),
                F.lit(card.thresholds[component]).alias("threshold"),
            )
            for component in COMPONENTS
        )
    )
    return (
        pipeline.transform(scorable(observations))
        .select(*OBSERVATION_KEY, F.inline(risks))
        .withColumn("is_alert", F.col("probability") >= F.col("threshold"))
        .withColumn("model_version", F.lit(card.version))
    )


def probability(component: str, card: ModelCard) -> Column:
    """Probability of a failure of the component, as a column of a frame that the pipeline transformed."""
    score = score_of(component, card.constant_probabilities)
    return card.calibration[component].column(score) if component in card.calibration else score


def score_of(component: str, constant_probabilities: Mapping[str, float]) -> Column:
    """What the classifier says before it is calibrated; a component that it could not learn has its constant."""
    from pyspark.ml.functions import vector_to_array

    if component in constant_probabilities:
        return F.lit(constant_probabilities[component])
    return F.element_at(vector_to_array(F.col(probability_of(component))), 2)
