"""What runs the PySpark transforms: DuckDB inside the process, or Spark."""
