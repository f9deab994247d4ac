"""Is all well? A rule at a time: the lake, Dagster's database, the disk. Without Spark, and nothing is written.

What `pdm-assets health` prints and monitors fetch. Each rule names the part of docs/operations.md that says what to do.
"""
