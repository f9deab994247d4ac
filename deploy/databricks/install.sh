#!/usr/bin/env bash
# Init script of a job cluster: the wheel, and from the lock file what it needs and the runtime does not have. Nothing by pip's
# own choice: the wheel asks for pyspark, and another one in place of the runtime's breaks it.
set -euo pipefail
here=/Volumes/main/pdm/jobs
/databricks/python/bin/pip install --quiet --no-deps --require-hashes -r "$here/requirements-databricks.txt"
/databricks/python/bin/pip install --quiet --no-deps "$here"/pdm_assets-*.whl
