"""An objective with a schedule: the KL terms' weight goes up again and again (cyclical annealing, Fu et al. 2019).

python analysis/bring_objective.py
onebit --import analysis/bring_objective.py compare --objectives elbo cyclical --guides gaussian --layers 1
"""

from __future__ import annotations

from typing import Any

from pyro_onebit import Config, build, exact, fit, register_objective
from pyro_onebit.training import BetaELBO


@register_objective("cyclical", pathwise=True, recorded=True)
class CyclicalELBO(BetaELBO):
    """Four cycles; in each the weight grows from 0 to 1 over the first half, and stays there."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, beta=1.0, **kwargs)

    def set_step(self, step: int, steps: int) -> None:
        """Set the weight of a step."""
        self.weight.fill_(min(1.0, 2.0 * (4.0 * step / steps % 1.0)))


def main(ndims: int = 5, steps: int | None = None) -> None:
    for objective in ("elbo", "cyclical"):
        config = Config(ndims=ndims, objective=objective, steps=steps)
        run = fit(*build(config), config, quiet=False)
        above = run.metrics["loss"] - exact.optimum(ndims)
        print(f"{objective}, n = {ndims}: {above:.5f} nats above the lowest loss of a Gaussian guide")


if __name__ == "__main__":
    main()
