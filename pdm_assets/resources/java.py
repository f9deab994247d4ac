"""The Java that Spark runs on: one that Spark 4.2 supports, which are 17, 21 and 25.

22 to 25.0.2 are refused for a reason of their own: their garbage collector may damage what is being compressed (JDK-8377811).

`python -m pdm_assets.resources.java` prints its folder, or what to install.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

WANTED = "17, 21 or 25 (of 25 from 25.0.3 on)"
TO_INSTALL = (
    f"Spark needs a Java runtime, {WANTED}: `make setup` installs one where it may, else install openjdk-17-jre-headless or "
    "openjdk-21-jre-headless (Debian/Ubuntu) or openjdk@17 (Homebrew), or set JAVA_HOME."
)
# Where packages for Debian, Red Hat, macOS and Homebrew put them: the folder above `bin`.
FOLDERS = (
    "/usr/lib/jvm/*",
    "/Library/Java/JavaVirtualMachines/*/Contents/Home",
    "/opt/homebrew/opt/openjdk@*",
    "/usr/local/opt/openjdk@*",
)
ANSWERS_IN_S = 60

Version = tuple[int, ...]


class JavaError(RuntimeError):
    """No Java that Spark can run on; the text says what to install."""


def java_home() -> Path:
    """Folder of the Java for Spark: that of JAVA_HOME, else of the PATH; if that is not fit, the newest installed one that is.

    Raises:
        JavaError: if JAVA_HOME names none or one that is not fit, or none that is fit is installed.
    """
    if named := os.environ.get("JAVA_HOME"):
        version = _version(Path(named))
        if version is None:
            raise JavaError(f"no Java found in JAVA_HOME, {named}. {TO_INSTALL}")
        if not _is_fit(version):
            raise JavaError(f"JAVA_HOME, {named}, is Java {_written(version)}. {TO_INSTALL}")
        return Path(named)
    versions: dict[Path, Version] = {}
    if (on_path := shutil.which("java")) is not None:
        home = Path(on_path).resolve().parent.parent
        if (version := _version(home)) is not None:
            if _is_fit(version):
                return home
            versions[home] = version
    versions |= {home: version for home in _installed() if (version := _version(home)) is not None}
    if fit := [home for home, version in versions.items() if _is_fit(version)]:
        return max(fit, key=versions.__getitem__)
    found = ", ".join(f"{_written(version)} ({home})" for home, version in versions.items())
    raise JavaError(f"{f'Java found: {found}' if found else 'no Java found'}. {TO_INSTALL}")


def _installed() -> Iterator[Path]:
    for pattern in FOLDERS:
        anchor = Path(pattern).anchor
        yield from sorted(Path(anchor).glob(pattern.removeprefix(anchor)))


def _version(home: Path) -> Version | None:
    """What the Java of a folder says of itself; None where there is none that runs."""
    try:
        said = subprocess.run(
            [home / "bin" / "java", "-version"], capture_output=True, text=True, timeout=ANSWERS_IN_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r'version "(\d+(?:\.\d+)*)', said.stderr)
    return tuple(map(int, found[1].split("."))) if found else None


def _is_fit(version: Version) -> bool:
    return version[0] in (17, 21) or (version[0] == 25 and version >= (25, 0, 3))


def _written(version: Version) -> str:
    return ".".join(map(str, version))


if __name__ == "__main__":
    try:
        print(java_home())
    except JavaError as error:
        sys.exit(str(error))
