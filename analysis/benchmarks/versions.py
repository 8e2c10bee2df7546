"""Do the tests pass with the lowest and the newest versions that pyproject.toml allows, on each Python?

    pip install uv
    python analysis/benchmarks/versions.py --pythons python3.11 python3.12 python3.13     # hours: all tests, each time
    python analysis/benchmarks/versions.py --pythons python3.11 --resolutions lowest-direct --tests tests/internals

Each environment is made from nothing, one after the other, and removed afterwards. Writes ``versions.csv``: the date
and the commit, the versions that were found for what the package needs, and what pytest said. A table that is there
keeps its other rows, so that environments may be tried one by one.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import pandas as pd

from pyro_onebit.reporting import markdown_table
from pyro_onebit.studies import Column

ROOT = Path(__file__).parents[2]
RESOLUTIONS = ("lowest-direct", "highest")
UV = [sys.executable, "-m", "uv"]


def needed() -> list[str]:
    """What the package itself needs, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [re.split(r"[^\w-]", requirement, maxsplit=1)[0] for requirement in project["dependencies"]]


def tried(python: str, resolution: str, args: argparse.Namespace) -> dict[str, Any]:
    """A row: an environment's versions, and what the tests say in it."""
    place = (args.out / f"{Path(python).name}-{resolution}").resolve()
    shutil.rmtree(place, ignore_errors=True)
    own = place / "bin" / "python"
    subprocess.run([*UV, "venv", "-q", "--python", python, str(place)], check=True)
    install = [*UV, "pip", "install", "-q", "--compile-bytecode", "--python", str(own), "--resolution", resolution]
    installed = subprocess.run([*install, f"{ROOT}[test]"], capture_output=True, text=True, check=False)
    which = subprocess.run(
        [own, "-c", "import platform; print(platform.python_version())"], capture_output=True, text=True, check=True
    )
    row = {
        "date": f"{datetime.date.today()}",
        "commit": _git("describe", "--always", "--dirty"),
        "python": which.stdout.strip(),
        "resolution": resolution,
    }
    if installed.returncode:
        return {**row, "versions": "", "result": " ".join(installed.stderr.split())[:200], "passed": False}
    listed = subprocess.run(
        [*UV, "pip", "list", "--python", str(own), "--format", "json"], capture_output=True, check=True
    )
    versions = {entry["name"]: entry["version"] for entry in json.loads(listed.stdout)}
    arguments = [own, "-m", "pytest", "-n", str(args.processes), "-o", f"cache_dir={place / 'cache'}", *args.tests]
    tests = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    (args.out / f"{place.name}.log").write_text(tests.stdout + tests.stderr)
    last = (tests.stdout.strip().splitlines() or [""])[-1]
    shutil.rmtree(place)
    return {
        **row,
        "versions": " ".join(f"{name} {versions[name]}" for name in needed() if name in versions),
        "result": re.sub(r" in [\d.]+s.*| =+|=+ ", "", last),
        "passed": tests.returncode == 0,
    }


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def main(args: argparse.Namespace) -> None:
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "versions.csv"
    rows = (
        pd.read_csv(path, dtype={"python": str, "commit": str}, keep_default_na=False).to_dict("records")
        if path.exists()
        else []
    )
    environment = itemgetter("python", "resolution")
    for python in args.pythons:
        for resolution in args.resolutions:
            row = tried(python, resolution, args)
            others = [other for other in rows if environment(other) != environment(row)]
            rows = sorted([*others, row], key=environment)
            pd.DataFrame(rows).to_csv(path, index=False)
            print(row, flush=True)
    print(markdown_table(rows, [Column(name) for name in rows[0]]))
    print(f"{sum(row['passed'] for row in rows)} of {len(rows)} environments pass.")
    if not all(row["passed"] for row in rows):
        raise SystemExit(1)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pythons", nargs="+", default=[sys.executable], help="interpreters")
    parser.add_argument("--resolutions", nargs="+", choices=RESOLUTIONS, default=list(RESOLUTIONS))
    parser.add_argument("--tests", nargs="+", default=["tests"], help="files or directories of tests")
    parser.add_argument("--processes", default="auto", help="that pytest takes")
    parser.add_argument("--out", type=Path, default=Path("results/versions"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(parse())
