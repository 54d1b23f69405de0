"""Check the pins of constraints.txt against known advisories: `make audit`.

    python release/audit.py [OPTIONS of pip-audit] [--pins FILE]

pip-audit asks PyPI for the advisories of each pin, or another service: `--vulnerability-service osv`. A service that
cannot be reached, or that knows none of the packages, is named in one line. That is not counted as a failure.

The exit code is 0 if no pin has an advisory or nothing could be checked, 1 if one has, 2 if the pins cannot be read.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from lmexp.terminal import Terminal

PINS = Path(__file__).parents[1] / "constraints.txt"
UNREACHABLE = ("Could not connect", "ServiceError", "ConnectionError", "not redirecting", "timed out", "HTTPError")
"""What pip-audit prints if a service does not answer as it should."""


def audit(pins: Path, options: list[str], out: Terminal) -> int:
    """Print the advisories of pinned packages, and return the exit code."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", str(pins), "--no-deps", "--disable-pip"]
    ended = subprocess.run(
        [*command, "--format", "json", "--progress-spinner", "off", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        packages: list[dict[str, Any]] = json.loads(ended.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = (ended.stderr.strip().splitlines() or ["pip-audit printed nothing"])[-1]
        if any(sign in ended.stderr for sign in UNREACHABLE):
            out.print_line(f"not checked: the advisory service cannot be reached ({last})")
            return 0
        out.print_line(f"error: {last}")
        return 2
    checked = [package for package in packages if "skip_reason" not in package]
    skipped = len(packages) - len(checked)
    if packages and not checked:
        out.print_line(f"not checked: the advisory service knows none of the {skipped} packages")
        return 0
    affected = [package for package in checked if package["vulns"]]
    for package in affected:
        for advisory in package["vulns"]:
            names = ", ".join([advisory["id"], *advisory.get("aliases", [])])
            fixed = ", ".join(advisory.get("fix_versions", [])) or "no version"
            out.print_line(f"{package['name']} {package['version']}: {names}; fixed in {fixed}")
    unknown = f"; the service does not know {skipped} others" if skipped else ""
    out.print_line(f"{len(checked)} pins checked, {len(affected)} with an advisory{unknown}")
    return 1 if affected else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, add_help=False)
    parser.add_argument("--pins", type=Path, default=PINS)
    known, others = parser.parse_known_args()
    sys.exit(audit(known.pins, others, Terminal()))
