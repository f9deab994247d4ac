"""Every Delta table of the platform by its key."""

from pyspark.sql import types as T

from pdm_assets.schemas.features import (
    BACKTEST,
    COMPONENT_FAILURES,
    COMPONENT_RISK,
    DECISIONS,
    FAILURE_MODEL,
    FEATURE_DRIFT,
    OBSERVATIONS,
    REALISED_PERFORMANCE,
    REGISTRY,
    WORKLIST,
)
from pdm_assets.schemas.raw import QUARANTINE_TABLES, RAW_TABLES
from pdm_assets.schemas.table import Table

TABLES: dict[str, Table] = {
    table.key: table
    for table in (
        *RAW_TABLES,
        *QUARANTINE_TABLES,
        OBSERVATIONS,
        COMPONENT_FAILURES,
        FAILURE_MODEL,
        REGISTRY,
        DECISIONS,
        BACKTEST,
        COMPONENT_RISK,
        WORKLIST,
        REALISED_PERFORMANCE,
        FEATURE_DRIFT,
    )
}
REAL_COLUMNS = sorted({f.name for table in TABLES.values() for f in table.columns if isinstance(f.dataType, T.DoubleType)})
