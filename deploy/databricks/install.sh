#!/usr/bin/env bash
# Init script of a job cluster: the wheel, and what it needs from the lock file. Nothing by pip's own choice: the wheel asks for
# pyspark, and another one in place of the runtime's breaks it. JOBS_VOLUME and JOBS_WHEEL are set in the cluster's spark_env_vars.
set -euo pipefail
/databricks/python/bin/pip install --quiet --no-deps --require-hashes -r "$JOBS_VOLUME/requirements-databricks.txt"
/databricks/python/bin/pip install --quiet --no-deps "$JOBS_VOLUME/$JOBS_WHEEL"
