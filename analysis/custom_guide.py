"""A guide of your own, beside the built-in ones: does a Laplace q(z1|x) do better than a Gaussian?

    python custom_guide.py                      # from any directory, with pyro_onebit installed
    python custom_guide.py --ndims 5 1000 --seeds 0 1 2

All that a guide needs is a name and ``q_z1``; a class that is not an extension of `OneLayerGuide` also needs
``forward``, the Pyro program.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from pyro.distributions import Independent, Laplace
from pyro.nn import DenseNN
from torch import Tensor
from torch.nn.functional import softplus

from pyro_onebit import OneLayerGuide, register_guide
from pyro_onebit.cli import main as onebit
from pyro_onebit.nn import Architecture


@register_guide("laplace")
class LaplaceGuide(OneLayerGuide):
    """q(z1|x) = Laplace(m(x), b(x)); the means start at -1 and 1."""

    def __init__(self, ndims: int, prob: float, arch: Architecture) -> None:
        super().__init__()
        self.net = DenseNN(1, [arch.width_x] * arch.hidden_layers, [1, 1])

    def q_z1(self, x: Tensor) -> Independent:
        """q(z1|x) of rows x ``(..., ndims)``: batch shape ``(...,)``, event shape ``(1,)``."""
        ones = x.mean(-1, keepdim=True)
        mean, raw = self.net(ones)
        return Laplace(2.0 * ones - 1.0 + mean, softplus(raw - 2.0) + 1e-4).to_event(1)


def main(args: argparse.Namespace) -> None:
    numbers = [*("--ndims", *args.ndims), *("--seeds", *args.seeds), *("--jobs", args.jobs)]
    steps = ["--steps", args.steps] if args.steps else []
    arguments = ["compare", "--guides", "gaussian", "laplace", *numbers, *steps, "--out", args.out]
    if code := onebit([str(argument) for argument in arguments]):
        raise SystemExit(code)
    print("\n" + answer(pd.read_csv(args.out / "comparison.csv")))


def answer(table: pd.DataFrame) -> str:
    """Which guide does better, by each one's worst seed."""
    worst = table.pivot_table(index="ndims", columns="guide", values="loss", aggfunc="max")
    return "\n".join(
        f"n = {ndims}: the Laplace guide does {'better' if row['laplace'] < row['gaussian'] else 'worse'} than the "
        f"Gaussian ({row['laplace']:.4f} against {row['gaussian']:.4f} nats, each one's worst seed)."
        for ndims, row in worst.iterrows()
    )


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--ndims", type=int, nargs="+", default=[5, 100])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=None, help="steps of the training, if not the recipe's")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results/custom_guide"))
    return parser.parse_args(argv)


if __name__ == "__main__":
    main(parse())
