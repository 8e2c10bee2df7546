"""Findings are made from the table's numbers."""

import math

import pandas as pd

from pyro_onebit.reporting import findings

LN2 = math.log(2.0)


def row(ndims: int, guide: str, gap: float, information: float, optimum: float = LN2, seed: int = 0) -> dict:
    layers = 2 if guide == "two_layer" else 1
    figures = {"loss": LN2 + gap, "entropy": LN2, "optimum": optimum, "mutual_information": information}
    return {"ndims": ndims, "layers": layers, "guide": guide, "seed": seed, **figures}


def test_a_study() -> None:
    table = pd.DataFrame(
        [
            row(1, "gaussian", 0.0, 0.0007),
            row(2, "gaussian", 0.2, 0.6, LN2 + 0.19),
            row(2, "gaussian", 0.3, 0.5 * LN2, LN2 + 0.19, seed=1),
            row(1, "two_layer", 0.001, 0.0),
            row(2, "two_layer", 0.002, 0.69),
        ]
    )
    use, one, two = findings(table)
    assert use == (
        "The latent is unused at n = 1 (it carries at most 0.1% of the bit), and is used at n = 2 (it carries at least "
        "50.0% of the bit)."
    )
    assert one == (
        "With one layer (guide gaussian) a datum costs up to 0.3000 nats more than the entropy, at n = 2; no decoder "
        "comes more than 0.1 nats lower with such a guide."
    )
    assert two == "With two layers (guide two_layer) a datum costs up to 0.0020 nats more than the entropy, at n = 2."


def test_a_run_that_collapsed_is_told() -> None:
    table = pd.DataFrame(
        [row(5, "gaussian", 0.4, information, seed=seed) for seed, information in enumerate((0.6, 0.0))]
    )
    assert findings(table)[0] == "The latent is used by some runs and not by others at n = 5."


def test_of_many_guides_the_best_and_the_worst() -> None:
    table = pd.DataFrame([row(5, guide, gap, 0.6) for guide, gap in (("flow", 0.1), ("prior", 2.0), ("oracle", 0.01))])
    _, best, worst = findings(table)
    assert "(guide oracle)" in best
    assert "(guide prior)" in worst


def test_an_empty_table_says_nothing() -> None:
    assert findings(pd.DataFrame()) == []
