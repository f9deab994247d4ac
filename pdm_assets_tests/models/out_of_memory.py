"""Stands in for the process that fits, and ends as it does when its JVM has no heap left."""

import os
import sys

sys.stdin.readline()
print("java.lang.OutOfMemoryError: Java heap space", file=sys.stderr, flush=True)
os._exit(3)
