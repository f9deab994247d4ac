"""A PostgreSQL server of a test's own: a cluster in a temporary folder, on this machine only, with a password."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pdm_assets_tests.ports import free_ports

PASSWORD = "db-password-5UPPOSED-secret"


@dataclass(frozen=True)
class Postgres:
    """A running server and where its programs are."""

    programs: Path
    port: int

    def url(self, name: str = "postgres") -> str:
        return f"postgresql://pdm:{PASSWORD}@127.0.0.1:{self.port}/{name}"

    def run(self, program: str, *arguments: str) -> str:
        """A program of PostgreSQL's, such as pg_dump; what it printed."""
        done = subprocess.run([self.programs / program, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


def programs() -> Path | None:
    """Where PostgreSQL is installed, if it is. Debian keeps the server's programs out of PATH."""
    found = [
        Path(shutil.which("initdb") or "").resolve(),
        *sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True),
    ]
    return next((path.parent for path in found if path.is_file() and (path.parent / "pg_ctl").exists()), None)


@contextmanager
def postgres(where: Path) -> Iterator[Postgres]:
    (port,) = free_ports(1)
    # It refuses to run as root, and its user can not enter a test's own folder.
    as_user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="pdm-postgres-"))
    try:
        (folder / "password").write_text(PASSWORD)
        if as_user:
            for path in (folder, folder / "password"):
                shutil.chown(path, "postgres", "postgres")

        def run(program: str, *arguments: str) -> None:
            command = [where / program, "-D", folder / "data", *arguments]
            subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, **as_user)

        run("initdb", "-U", "pdm", "--auth=scram-sha-256", f"--pwfile={folder / 'password'}", "--encoding=UTF8", "--no-sync")
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='{folder}' -c fsync=off"
        run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield Postgres(where, port)
        finally:
            run("pg_ctl", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
