import math
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch
from conftest import SEED

from pyro_onebit import (
    RECIPES,
    Config,
    GaussianGuide,
    InputError,
    OneBitData,
    Run,
    TrainingError,
    build,
    exact,
    fit,
    load_run,
    save_run,
)
from pyro_onebit.bounds import pyro_bound
from pyro_onebit.studies import to_inference_data

SHORT = {"ndims": 3, "steps": 30, "seed": SEED}


def parameters(run: Run) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in [*run.model.parameters(), *run.guide.parameters()]])


def train(**changes: object) -> Run:
    config = Config(**{**SHORT, **changes})
    return fit(*build(config), config)


@cache
def short(layers: int, preset: str = "default") -> Run:
    """Trained once, for whoever asks."""
    return train(layers=layers, preset=preset)


@pytest.mark.parametrize("preset", sorted(RECIPES))
@pytest.mark.parametrize("layers", [1, 2])
def test_history_holds_every_term(layers: int, preset: str) -> None:
    run = short(layers, preset)
    names = ["stage", "step", "loss", "recon", "kl1", *(["kl2"] if layers == 2 else []), "lr"]
    assert list(run.history) == names
    assert run.history["step"] == list(range(30))
    for _, _, loss, *terms, _ in zip(*run.history.values(), strict=True):
        assert sum(terms) == pytest.approx(loss)
    recipe = run.config.recipe
    assert run.history["stage"] == [0] * recipe.first_steps + [1] * (30 - recipe.first_steps)
    assert (recipe.first_steps > 0) == (preset != "reference")
    for number, stage in enumerate(recipe.stages()):
        own = [lr for lr, at in zip(run.history["lr"], run.history["stage"], strict=True) if at == number]
        if own:
            assert own[0] == stage.lr
            assert own[-1] * (stage.lr_final / stage.lr) ** (1 / stage.steps) == pytest.approx(stage.lr_final)


@pytest.mark.parametrize("layers", [1, 2])
def test_at_one_dimension_the_latent_ends_unused(layers: int) -> None:
    run = train(ndims=1, layers=layers, steps=400)
    assert run.metrics["mutual_information"] < 0.01
    assert run.metrics["loss"] == pytest.approx(math.log(2), abs=1e-3)


@pytest.mark.parametrize(("layers", "model"), [(1, "one_layer"), (2, "two_layer"), (1, "learned_prior")])
@pytest.mark.parametrize("prob", [0.5, 0.1])
def test_nothing_is_planted(layers: int, model: str, prob: float, trained: Callable[..., Run]) -> None:
    """Before its first step a decoder gives both codewords the same of z, whatever the seed; the bit is found."""
    run = trained(layers, 5, prob, model)
    decoder, guide, data = build(run.config)
    z = torch.tensor([[-2.0], [2.0]])
    decoder.p_x.net.layers[-1].weight.data.zero_()
    assert torch.equal(*decoder.p_x(z).base_dist.logits)
    assert len(guide.q_z1.places.unique()) == 1
    assert set(run.history["stage"]) == {0, 1}
    assert run.metrics["loss"] - run.metrics["optimum"] < 0.01
    assert run.metrics["mutual_information"] > 0.8 * data.entropy


@pytest.mark.parametrize(("layers", "most"), [(1, 0.005), (2, 0.001)])
def test_an_analytic_start_is_near_the_optimum_before_training(layers: int, most: float) -> None:
    for ndims, prob in ((1, 0.5), (1000, 0.5), (100, 0.1)):
        config = Config(ndims=ndims, layers=layers, prob=prob, start="analytic", seed=SEED)
        figures = exact.evaluate(*build(config))
        assert 0 <= figures["loss"] - figures["optimum"] + 1e-9 < most
        second = replace(config, start="random").recipe.stages()[1]
        assert (config.recipe.first_steps, config.recipe.steps) == (0, second.steps)


@pytest.mark.parametrize("changes", [{"guide": "mixture"}, {"preset": "reference"}, {"guide": "top_down", "layers": 2}])
def test_what_has_a_start_of_its_own_has_no_analytic_one(changes: dict) -> None:
    with pytest.raises(InputError, match=r"start is 'analytic', and guide .* has a start of its own; leave it out"):
        Config(start="analytic", **changes)


def test_a_run_worse_than_none_without_a_latent_begins_again() -> None:
    """Three steps from the start with the bit in the latent leave a loss above two entropies."""
    config = Config(ndims=2, layers=2, guide="mean_field", steps=3, seed=SEED)
    run = fit(*build(config), config)
    assert run.history["stage"] == [1, 1, 1, 2, 2, 2]
    assert run.history["step"] == [0, 1, 2] * 2
    assert run.history["loss"][0] > 2 * run.data.entropy
    assert run.metrics["loss"] < run.history["loss"][0]


def test_a_second_attempt_that_fails_leaves_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(ndims=2, layers=2, guide="mean_field", steps=3, seed=SEED)
    model, guide, data = build(config)
    outcomes = []

    def begin_badly(self: torch.nn.Module, *args: object) -> None:
        with torch.no_grad():
            next(self.parameters()).fill_(math.nan)

    def keep(run: Run) -> bool:
        outcomes.append((parameters(run), run.metrics["loss"]))
        return True

    monkeypatch.setattr("pyro_onebit.training.fitting._is_worse_than_no_latent", keep)
    monkeypatch.setattr(type(model), "reset_parameters", begin_badly)
    run = fit(model, guide, data, config)
    [(first, loss)] = outcomes
    assert torch.equal(parameters(run), first)
    assert run.metrics["loss"] == loss


@pytest.mark.parametrize("preset", sorted(RECIPES))
def test_training_lowers_the_exact_loss(preset: str) -> None:
    assert train(steps=200, preset=preset).metrics["loss"] < train(steps=1, preset=preset).metrics["loss"]


def global_state() -> tuple:
    return (
        torch.random.get_rng_state().tolist(),
        list(pyro.get_param_store().keys()),
        torch.get_num_threads(),
        torch.get_default_dtype(),
        pyro.infer.util.is_validation_enabled(),
        list(warnings.filters),
    )


def test_same_seed_same_run_whatever_came_before_and_nothing_global_changes() -> None:
    first, other = short(2), train(layers=2, seed=SEED + 4)
    assert not torch.equal(parameters(first), parameters(other))
    torch.rand(7)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        before = global_state()
        again = train(layers=2)
        assert global_state() == before
    finally:
        torch.set_num_threads(threads)  # on which other tests' last digits hang
    assert torch.equal(parameters(first), parameters(again))
    assert first.history == again.history


def test_same_seed_same_run_in_another_process() -> None:
    """Which has imported no compiler of torch's, nor what that needs: they take longer to import than torch."""
    program = (
        f"import sys, torch; from pyro_onebit import *; torch.set_num_threads(2); c = Config(**{SHORT}, layers=2);"
        "r = fit(*build(c), c); print(repr(r.metrics['loss']));"
        "print({'torch._dynamo', 'torch._inductor', 'sympy'} & {*sys.modules})"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == f"{short(2).metrics['loss']!r}\nset()\n"
    assert ran.stderr == ""


def test_what_is_not_the_configurations_is_refused() -> None:
    """A subclass's density, or other networks, would be saved, and loaded, as its own."""

    class Laplace(GaussianGuide):
        pass

    config = Config(ndims=3, steps=2)
    model, guide, data = build(config)
    two_layers, _, _ = build(Config(ndims=3, layers=2))
    wider, _, _ = build(config, replace(config.recipe, arch=replace(config.recipe.arch, width_x=7)))
    for given, message in (
        ((two_layers, guide, data), "model is a TwoLayerModel; the configuration has OneLayerModel"),
        ((model, Laplace(3), data), "guide is a Laplace; the configuration has GaussianGuide"),
        ((wider, guide, data), "model has other networks than the configuration's"),
        ((model, guide, OneBitData(3, 0.2)), r"data is OneBitData\(ndims=3, prob=0\.2, .*; the configuration's is One"),
    ):
        with pytest.raises(InputError, match=message):
            fit(*given, config)


def test_what_a_caller_has_set_makes_no_difference() -> None:
    expected = short(2)

    def others(_: int) -> Run:
        torch.set_float32_matmul_precision("medium")
        with torch.inference_mode(), torch.autocast("cpu"), np.errstate(all="raise"), torch.device("meta"):
            return train(layers=2)

    flag = pyro.infer.util.is_validation_enabled()
    try:
        with ThreadPoolExecutor(2) as pool:  # and side by side
            found = list(pool.map(others, range(2)))
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert pyro.infer.util.is_validation_enabled() == flag
    for run in found:
        assert torch.equal(parameters(run), parameters(expected))
        assert {**run.metrics, "seconds": 0} == {**expected.metrics, "seconds": 0}


def test_a_loss_that_is_not_finite_keeps_the_last_good_parameters() -> None:
    config = Config(ndims=3, steps=50, lr=1e30, seed=SEED)
    with pytest.raises(TrainingError, match="not finite; the last parameters before it are kept") as caught:
        fit(*build(config), config)
    assert torch.isfinite(parameters(caught.value.run)).all()
    assert all(math.isfinite(loss) for loss in caught.value.run.history.get("loss", []))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ndims": 0}, "ndims is 0"),
        ({"prob": 1.5}, "prob is 1.5"),
        ({"layers": 3}, "layers is 3; it must be 1 or 2"),
        ({"seed": -1}, "seed is -1"),
        ({"steps": 0}, "steps is 0"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"lr": math.nan}, "lr is nan"),
        ({"schedule": "steep"}, "schedule is 'steep'; it must be one of exponential, linear"),
    ],
)
def test_configurations_that_are_wrong(change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Config(**change)


@pytest.mark.parametrize(
    ("layers", "ndims", "seen"),
    [(1, 1000, 64), (1, 100_000, 32), (2, 100, 128), (2, 1000, 16), (2, 2000, 8), (2, 100_000, 8)],
)
def test_the_decoder_sees_as_many_particles_as_it_can_pay_for(layers: int, ndims: int, seen: int) -> None:
    assert RECIPES["default"](layers).seen(ndims) == seen


def test_an_outcome_that_cannot_be_judged_keeps_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise ArithmeticError("quadrature did not settle")

    monkeypatch.setattr("pyro_onebit.training.run.evaluate", refuse)
    with pytest.raises(TrainingError, match="did not settle") as caught:
        train()
    assert caught.value.run.history["step"][-1] == 29
    assert caught.value.run.metrics == {}


@pytest.mark.parametrize(("layers", "objective"), [(2, "stl"), (1, "rws")])
def test_in_double_precision(layers: int, objective: str, tmp_path: Path) -> None:
    config = Config(ndims=3, layers=layers, objective=objective, steps=10, dtype="float64", seed=SEED)
    run = fit(*build(config), config)
    assert all(p.dtype == torch.float64 for p in (*run.model.parameters(), *run.guide.parameters()))
    assert torch.get_default_dtype() == torch.float32
    assert run.metrics["loss"] > run.data.entropy
    save_run(run, tmp_path)
    loaded = load_run(tmp_path)
    assert loaded.judge()["loss"] == run.metrics["loss"]
    to_inference_data(loaded, draws=10)
    pyro_bound(loaded.model, loaded.guide, loaded.data, particles=3)


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    config = Config(ndims=3, device="cuda")
    with pytest.raises(InputError, match="torch finds none here; take 'cpu'"):
        fit(*build(config), config)
