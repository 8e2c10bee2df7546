"""An objective of one's own, with a schedule: does warming the KL term up again and again help?

    python analysis/own_objective.py                           # about a minute on two cores
    python analysis/own_objective.py --ndims 5 1000 --seeds 0 1 2 3 4

Any Pyro ELBO class can be registered, and is evaluated as it is at each step, on rows with independent samples
(`DampedELBO`). One whose traces alone are its own may say that a step of it can be recorded; then it is trained as the
default is, and what changes with the step is a tensor that `set_step` fills (`CyclicalELBO`).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import pandas as pd
from common import parser_of, tell_failures, write
from pyro import poutine
from pyro.infer import Trace_ELBO

from pyro_onebit import register_objective
from pyro_onebit.plots import loss_figure
from pyro_onebit.studies import StudyGrid, run_study
from pyro_onebit.training import BetaELBO


@register_objective("cyclical", pathwise=True, recorded=True)
class CyclicalELBO(BetaELBO):
    """The KL terms' weight grows from 0 to 1, and stays there, four times (Fu et al. 2019)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, beta=1.0, **kwargs)

    def set_step(self, step: int, steps: int) -> None:
        """Set the weight of a step."""
        self.weight.fill_(min(1.0, 2.0 * (4.0 * step / steps % 1.0)))


@register_objective("damped", pathwise=True)
class DampedELBO(Trace_ELBO):
    """The whole loss fades out, in plain Python."""

    left = 1.0

    def set_step(self, step: int, steps: int) -> None:
        """Set what is left of the loss."""
        self.left = 1.0 - step / steps

    def loss_and_grads(self, model: Any, guide: Any, *args: Any, **kwargs: Any) -> float:
        """Add to the parameters' gradients."""
        with poutine.scale(scale=self.left):
            loss: float = super().loss_and_grads(model, guide, *args, **kwargs)
        return loss / self.left


def main(args: argparse.Namespace) -> None:
    names = {"objectives": tuple(args.objectives), "seeds": tuple(args.seeds)}
    study = run_study(StudyGrid(tuple(args.ndims), (1,), steps=args.steps, **names).configs(), args.out, args.jobs)
    tell_failures(study.failures)
    runs = study.table.assign(above=study.table["loss"] - study.table["optimum"])
    cells = runs.groupby(["ndims", "objective"], sort=False)
    table = cells.agg(seeds=("seed", "count"), worst=("above", "max"), seconds=("seconds", "median")).reset_index()
    write(args, "own_objective", table, loss_figure(study.table), answer(table))


def answer(table: pd.DataFrame) -> str:
    worst = table.groupby("objective", sort=False)["worst"].max()
    return (
        "Worst loss above the limit, nats: " + ", ".join(f"{name} {above:.5f}" for name, above in worst.items()) + "."
    )


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    defaults = {"objectives": ["elbo", "annealed", "cyclical", "damped"], "ndims": [5], "seeds": [0, 1, 2]}
    return parser_of(__doc__, "own_objective", **defaults).parse_args(arguments)


if __name__ == "__main__":
    main(parse())
