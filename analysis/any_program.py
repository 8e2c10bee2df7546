"""Is any program judged rightly, or refused in words? Programs that a user may bring, and what is true of them.

    python analysis/any_program.py
    python analysis/any_program.py --cases "Student t" refuse:      # those whose name has one of these in it
    python analysis/any_program.py --out analysis/recorded          # the record

The right answers come from numpy and SciPy (`programs.answers`), not from the package and not from a Pyro program.
A figure is right if it differs from the right one by at most 1e-6, and for a figure above one nat 1e-6 of it (1e-5 for
two layers as built and for a guide in single precision). What has an answer may still be refused, and is counted
apart; what has none must be. Writes ``any_program.csv``, a row per figure, and ``any_program.png``, each figure's error
against the error that it was given with; prints the table and the answer. The exit status is 1 if any case is
silently wrong, or ends in an error that is no refusal.
"""

from __future__ import annotations

import argparse
import math
import signal
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyro
import torch
from matplotlib.figure import Figure
from programs import Case, all_cases
from programs.answers import agreement

from pyro_onebit import exact
from pyro_onebit.errors import InputError
from pyro_onebit.files import write_table
from pyro_onebit.plots import GREY, LIGHT, PALETTE, save
from pyro_onebit.reporting import markdown_table
from pyro_onebit.studies import Column

#: From the best to the worst that may become of a case.
VERDICTS = ("right", "refused", "crash", "WRONG")
SHOWN = ("case", "figure", "right", "given", "error_estimate", "verdict", "reason")
COLUMNS = ("case", "figure", "right", "given", "error", "error_estimate", "verdict", "reason", "seconds", "how")


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise a TimeoutError in what takes longer."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"no answer in {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def judged(case: Case, seconds: int) -> tuple[Any, str, str]:
    """What `exact.evaluate` gives, or None; how it refused ("refused" or "crash"); and in which words."""
    with pyro.get_param_store().scope(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, guide, data = case.make()
        try:
            with time_limit(seconds):
                return exact.evaluate(model, guide, data), "", ""
        except Exception as error:
            kind = "refused" if isinstance(error, ArithmeticError | InputError) else "crash"
            return None, kind, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def rows_of(case: Case, seconds: int) -> list[dict[str, Any]]:
    """A row for each figure whose right value is known; one for a case that is to be refused."""
    rights = case.right() if case.right else {"loss": "refuse"}
    start = time.perf_counter()
    figures, refusal, reason = judged(case, seconds)
    took = round(time.perf_counter() - start, 2)
    rows = []
    for name, right in rights.items():
        row: dict[str, Any] = {**dict.fromkeys(COLUMNS), "case": case.name, "figure": name, "right": right}
        row |= {"verdict": refusal, "reason": reason, "seconds": took, "how": case.how}
        if figures is not None:
            given = figures[name]
            row |= {"given": given, "error_estimate": figures.errors.get(name)}
            if given is None:
                row |= {"verdict": "refused", "reason": getattr(figures, "reasons", {}).get(name, "not known")}
            else:
                row |= verdict_on(given, right, case.tolerance)
        if right == "refuse" and row["verdict"] == "refused":
            row["verdict"] = "right"
        rows.append(row)
    return rows


def verdict_on(given: float, right: float | str, tolerance: float) -> dict[str, Any]:
    """Whether a figure that was given is right, and how far off it is."""
    if isinstance(right, str):
        return {"verdict": "WRONG"}
    error = 0.0 if given == right else abs(given - right)
    fine = error <= tolerance * max(1.0, abs(right)) if math.isfinite(right) else error == 0.0
    return {"error": error, "verdict": "right" if fine else "WRONG"}


def verdict_of(rows: Sequence[dict[str, Any]]) -> str:
    """What became of a case: the worst that became of any of its figures."""
    return max((row["verdict"] for row in rows), key=VERDICTS.index)


def draw(rows: Sequence[dict[str, Any]]) -> Figure:
    """Each figure's error, relative above one nat, against the estimate that it was given with."""
    figure = Figure(figsize=(6.0, 5.0), layout="constrained")
    axes = figure.subplots()
    for verdict, colour in (("right", PALETTE[0]), ("WRONG", PALETTE[1])):
        own = [row for row in rows if row["verdict"] == verdict and row["error"] is not None]
        own = [row for row in own if math.isfinite(row["error"]) and row["error_estimate"] is not None]
        scale = np.array([max(1.0, abs(row["right"])) for row in own])
        estimate = np.array([row["error_estimate"] for row in own]) / scale
        error = np.array([row["error"] for row in own]) / scale
        axes.plot(np.maximum(estimate, 1e-17), np.maximum(error, 1e-17), "o", ms=4, color=colour, label=verdict)
    axes.plot([1e-17, 1.0], [1e-17, 1.0], color=GREY, ls=":", label="as estimated")
    axes.set(xscale="log", yscale="log", xlabel="error estimate, nats or share", ylabel="error, nats or share")
    axes.grid(color=LIGHT)
    axes.legend(frameon=False, fontsize=9)
    return figure


def answer(verdicts: dict[str, str]) -> str:
    """How many cases are right, refused, wrong; and which are not right."""
    lists = {kind: [name for name, verdict in verdicts.items() if verdict == kind] for kind in VERDICTS}
    counts = f"{len(lists['right'])} right, {len(lists['refused'])} refused, {len(lists['WRONG'])} silently wrong"
    crashes = f", {len(lists['crash'])} ended in an error that is no refusal" if lists["crash"] else ""
    wrong = [f"silently wrong: {'; '.join(lists['WRONG'])}."] if lists["WRONG"] else []
    return "\n".join([*wrong, f"{len(verdicts)} cases: {counts}{crashes}"])


def main(args: argparse.Namespace) -> None:
    warnings.simplefilter("ignore")
    print(f"The independent rule agrees with closed forms and scipy.integrate.quad to {agreement():.1e}.")
    cases = [case for case in all_cases() if any(part in case.name for part in args.cases)]
    rows: list[dict[str, Any]] = []
    verdicts = {}
    for case in cases:
        own = rows_of(case, args.limit)
        verdicts[case.name] = verdict_of(own)
        print(f"{verdicts[case.name]:8s}{own[0]['seconds']:7.2f} s  {case.name}", flush=True)
        rows += own
    write_table(args.out / "any_program.csv", pd.DataFrame(rows, columns=list(COLUMNS)))
    save(draw(rows), args.out / "any_program.png")
    amiss = [{name: row[name] for name in SHOWN} for row in rows if row["verdict"] != "right"]
    print("\n" + markdown_table(amiss, [Column(name, format=".7g") for name in SHOWN]) if amiss else "")
    print(f"\n{answer(verdicts)}\nwritten to {args.out}: any_program.csv, any_program.png")
    if {"WRONG", "crash"} & set(verdicts.values()):
        raise SystemExit(1)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--cases", nargs="+", default=[""], metavar="PART", help="parts of the names of cases")
    parser.add_argument("--limit", type=int, default=120, metavar="S", help="seconds that a case may take")
    parser.add_argument("--out", type=Path, default=Path("results/any_program"), help="directory to write to")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(parse())
