"""PySpark's DataFrame API on DuckDB: a Spark Connect endpoint inside the process, without a JVM, a server or a port.

The client stays PySpark's own. A plan that it sends becomes one DuckDB statement with Spark's semantics in ANSI mode, or is
refused with a name. `channel.connect` gives a session; functions.py is the table of what is known.
"""
