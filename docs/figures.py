"""Draw every figure of the docs: run the commands that make them, and copy what they draw.

    python docs/figures.py                          # about half an hour on two cores
    python docs/figures.py --only study bits_back
    python docs/tables.py                           # afterwards, for the answers

Results are kept in ``results/docs``; existing runs of the study are not trained again.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
RESULTS = ROOT / "results" / "docs"
#: Scripts on several bits, which train runs of their own.
FEW_BITS = ("gray_code", "which_bits", "amortisation")
#: A command, and of the figures that it makes those that the docs show, with their names there.
FIGURES: dict[str, tuple[list[str], dict[str, str]]] = {
    "study": (
        ["-m", "pyro_onebit", "study"],
        {f"figures/{name}.png": f"{name}.png" for name in ("information", "loss", "posterior", "aggregate")},
    ),
    **{
        name: ([f"analysis/{name}.py"], {f"{name}.png": f"{name}.png"})
        for name in ("iwae_bounds", "when_is_z_used", "negative_kl1", "calibration", "bits_back", *FEW_BITS)
    },
    "guides": (["analysis/compare_guides.py", "--seeds", "0"], {"compare_guides.png": "guides.png"}),
}
#: Scripts whose answers the docs quote, with the numbers of dimensions of the study's runs that they look at.
LOOKS: dict[str, tuple[int, ...]] = {
    "iwae_bounds": (5, 1000),
    "when_is_z_used": (1, 2, 3, 5, 10, 100, 1000),
    "calibration": (5, 1000),
    "negative_kl1": (),
    **dict.fromkeys(FEW_BITS, ()),
}


def main(only: Sequence[str]) -> None:
    """Run, copy the figures, and keep the answers."""
    for name in only:
        command, drawn = FIGURES[name]
        if sizes := LOOKS.get(name):
            runs = [path for n in sizes for path in sorted(RESULTS.glob(f"study/runs/*-ndims{n:06d}-*"))]
            command = [*command, "--run", *map(str, runs)]
        print(f"{name}: {' '.join(command)}", flush=True)
        told = subprocess.PIPE if name in LOOKS else None
        command = [sys.executable, *command, "--out", str(RESULTS / name)]
        said = subprocess.run(command, cwd=ROOT, check=True, stdout=told, text=True).stdout
        if told:
            # A script prints its table, an empty line, its answer, and where it wrote them.
            answer = said.partition("\n\n")[2].rpartition("\nwritten to ")[0]
            (ROOT / "analysis" / "recorded" / "answers" / f"{name}.txt").write_text(f"{answer}\n", encoding="utf-8")
        for source, target in drawn.items():
            shutil.copyfile(RESULTS / name / source, DOCS / target)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=FIGURES, default=list(FIGURES))
    main(parser.parse_args().only)
