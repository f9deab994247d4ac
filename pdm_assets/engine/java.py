"""The Java that Spark runs on: one that Spark 4.2 supports, which are 17, 21 and 25.

22 to 25.0.2 are refused for a reason of their own: their garbage collector may damage what is being compressed (JDK-8377811).

`python -m pdm_assets.engine.java` prints its folder, or what to install.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

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


class JavaError(RuntimeError):
    """No Java that Spark can run on; the text says what to install."""


def java_home() -> Path:
    """Folder of the Java for Spark: that of JAVA_HOME, else of the PATH; if that is not fit, the newest installed one that is.

    Raises:
        JavaError: if JAVA_HOME names none or one that is not fit, or none that is fit is installed.
    """
    if named := os.environ.get("JAVA_HOME"):
        java = ask(Path(named) / "bin" / "java")
        if java is None:
            raise JavaError(f"no Java found in JAVA_HOME, {named}. {TO_INSTALL}")
        if not java.is_fit:
            raise JavaError(f"JAVA_HOME, {named}, is Java {java}. {TO_INSTALL}")
        return Path(named)
    on_path = shutil.which("java")
    java = ask(Path(on_path)) if on_path else None
    if java is not None and java.is_fit:
        return java.home
    found = [java, *map(ask, _installed())]
    there = list(dict.fromkeys(java for java in found if java is not None))  # folders may be links to another
    if fit := [java for java in there if java.is_fit]:
        return max(fit, key=lambda java: java.version).home
    others = ", ".join(f"{java} ({java.home})" for java in there)
    raise JavaError(f"{f'Java found: {others}' if others else 'no Java found'}. {TO_INSTALL}")


class Java(NamedTuple):
    """What a Java says of itself."""

    home: Path
    version: tuple[int, ...]

    def __str__(self) -> str:
        return ".".join(map(str, self.version))

    @property
    def is_fit(self) -> bool:
        """Whether Spark 4.2 supports it."""
        return self.version[0] in (17, 21) or (self.version[0] == 25 and self.version >= (25, 0, 3))


def _installed() -> Iterator[Path]:
    for pattern in FOLDERS:
        anchor = Path(pattern).anchor
        yield from sorted(Path(anchor).glob(f"{pattern.removeprefix(anchor)}/bin/java"))


def ask(program: Path) -> Java | None:
    """Its own word, for the program on a PATH may be a script that starts another; None if there is none that runs."""
    command = [str(program), "-XshowSettings:properties", "-version"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=ANSWERS_IN_S, check=True).stderr
    except (OSError, subprocess.SubprocessError):
        return None
    home = re.search(r"^ *java\.home = (.+)$", said, re.MULTILINE)
    version = re.search(r"^ *java\.version = (\d+(?:\.\d+)*)", said, re.MULTILINE)
    if home is None or version is None:
        return None
    return Java(Path(home[1]), tuple(map(int, version[1].split("."))))


if __name__ == "__main__":
    try:
        print(java_home())
    except JavaError as error:
        sys.exit(str(error))
