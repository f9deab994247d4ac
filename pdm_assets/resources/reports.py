"""Files for people: below data/reports, each written whole."""

import os
import tempfile
from pathlib import Path

import dagster as dg


class Reports(dg.ConfigurableResource):
    """Pages and lists below `root`."""

    root: str

    def write(self, name: str, text: str) -> Path:
        """Put a text under a name, whole or not at all; the path."""
        path = Path(self.root) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".", suffix=".part", delete=False, newline="") as file:
            file.write(text)
        os.chmod(file.name, 0o644)  # a temporary file is its owner's alone
        Path(file.name).replace(path)
        return path
