"""Known vulnerabilities of the pinned packages, asked of OSV (https://osv.dev) in one request. Run by `make audit`.

Only names and versions of the lock files leave the machine. Where OSV can't be reached the check is skipped and says why.
"""

import json
import re
import sys
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCKS = (ROOT / "requirements.lock", ROOT / "requirements-uv.lock")
OSV = "https://api.osv.dev/v1/querybatch"
PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^]]*])?==([^\s;\\]+)", re.MULTILINE)
TIMEOUT_S = 20


def pins(text: str) -> list[tuple[str, str]]:
    """Name and version of each pin of a lock file."""
    return PIN.findall(text)


def known_vulnerabilities(packages: list[tuple[str, str]], url: str = OSV) -> dict[tuple[str, str], list[str]]:
    """The ids that OSV knows, of the packages that have any.

    Raises:
        OSError: if OSV can't be reached.
        ValueError: if what answers is not OSV.
    """
    queries = [{"package": {"name": name, "ecosystem": "PyPI"}, "version": version} for name, version in packages]
    body = json.dumps({"queries": queries}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        content = json.load(answer)
    results = content.get("results") if isinstance(content, dict) else None
    if not isinstance(results, list) or len(results) != len(packages):
        raise ValueError("it does not answer each question, as OSV does")
    found = {package: [its["id"] for its in result.get("vulns", ())] for package, result in zip(packages, results, strict=True)}
    return {package: ids for package, ids in found.items() if ids}


def main(url: str = OSV) -> int:
    """Say what is known; 1 if anything is."""
    packages = [pin for lock in LOCKS for pin in pins(lock.read_text())]
    try:
        found = known_vulnerabilities(packages, url)
    except (OSError, ValueError) as error:
        print(f"skipped: {url} can't be asked about the {len(packages)} pinned packages: {error}")
        return 0
    for (name, version), ids in found.items():
        print(f"{name}=={version}: {', '.join(f'https://osv.dev/{each}' for each in ids)}")
    print(f"{len(packages)} pinned packages, {len(found)} with known vulnerabilities")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
