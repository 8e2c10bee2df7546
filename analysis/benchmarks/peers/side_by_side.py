"""Many seeds of one configuration trained in one program, by the default recipe; and judged, in other processes."""

from __future__ import annotations

import pickle
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pyro
import torch
from torch import Tensor, nn
from torch.fx import Graph, Node
from torch.fx.experimental.proxy_tensor import make_fx

from pyro_onebit import OBJECTIVES, Config, Guide, Model, Recipe, build, fit
from pyro_onebit.exact import evaluate
from pyro_onebit.internals import particle_traces, sample_sites
from pyro_onebit.settings import Device
from pyro_onebit.training import SOAP, LatticeNoise, first_layer, learned_start

Pairs = list[tuple[Model, Guide]]


class Both(nn.Module):
    """A model and a guide; called with the codewords, what is differentiated in place of their negative ELBO."""

    def __init__(self, model: Model, guide: Guide, config: Config, recipe: Recipe) -> None:
        super().__init__()
        self.model, self.guide = model, guide
        self.particles = recipe.particles or 1
        self.elbo = OBJECTIVES[recipe.objective](self.particles)
        self.noise = LatticeNoise(self.particles, config.data.probs, recipe.noise_width)

    def forward(self, x: Tensor) -> Tensor:
        """Of codewords ``(M, ndims)``, nats per datum."""
        with self.noise:
            of_model, of_guide = particle_traces(self.elbo, self.model, self.guide, (x,), {})
        log_p = sum(site["log_prob_sum"] for _, site in sample_sites(of_model))
        entropy = sum(site["score_parts"].entropy_term.sum() for _, site in sample_sites(of_guide))
        return (entropy - log_p) / self.particles


def train_stage(pairs: Pairs, config: Config, recipe: Recipe, device: str) -> None:
    """All pairs' parameters after a recipe's steps, in place."""
    with torch.device(device), pyro.validation_enabled(False):
        both = [Both(model, guide, config, recipe).to(device) for model, guide in pairs]
        x = config.data.codewords
        names = [name for name, _ in both[0].named_parameters()]
        fixed = {name: torch.stack([one.get_buffer(name) for one in both]) for name, _ in both[0].named_buffers()}
        stacked = [torch.stack([one.get_parameter(name).detach() for one in both]) for name in names]

        def gradients(values: list[Tensor], buffers: dict[str, Tensor]) -> list[Tensor]:
            own = [value.detach().requires_grad_() for value in values]
            loss = torch.func.functional_call(both[0], (dict(zip(names, own, strict=True)), buffers), (x,))
            found = torch.autograd.grad(loss, own, materialize_grads=True)
            norm = sum(one.square().sum() for one in found) ** 0.5  # type: ignore[operator]
            scale = 1.0 if recipe.clip is None else (recipe.clip / (norm + 1e-6)).clamp(max=1.0)
            return [one * scale for one in found]

        graph = make_fx(gradients)([value[0] for value in stacked], {name: value[0] for name, value in fixed.items()})
        promote(graph.graph)
        graph.recompile()
        mapped = torch.vmap(graph, randomness="different")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*non-contiguous")  # what is mapped is copied
            take_steps(stacked, partial(mapped, stacked, fixed), recipe)
    with torch.no_grad():
        for i, own in enumerate(both):
            for name, value in zip(names, stacked, strict=True):
                own.get_parameter(name).copy_(value[i])
            own.cpu()


def promote(graph: Graph) -> None:
    """Convert what an operation takes to the type of what it gives: mapped, a number would have its own type's say."""

    def dtype(node: Node) -> torch.dtype | None:
        return getattr(node.meta.get("tensor_meta"), "dtype", None)

    for node in graph.nodes:
        for own in node.all_input_nodes if node.op == "call_function" else ():
            if (dtype(own), dtype(node)) == (torch.float64, torch.float32) and node.target is not _CONVERT:
                with graph.inserting_before(node):
                    node.replace_input_with(own, graph.call_function(_CONVERT, (own,), {"dtype": torch.float32}))


_CONVERT = torch.ops.aten._to_copy.default


@torch.no_grad()
def take_steps(stacked: list[Tensor], gradients: Callable[[], list[Tensor]], recipe: Recipe) -> None:
    """A recipe's steps on parameters that are stacked, the seeds first, by its own optimisers."""
    hidden = [p for p in stacked if recipe.soap and p.ndim == 3 and min(p.shape[1:]) > recipe.arch.width_x]
    others = [p for p in stacked if all(p is not h for h in hidden)]
    on_gpu = stacked[0].is_cuda
    betas = (0.95, 0.99) if recipe.soap else (0.9, 0.999)
    # What is captured reads its learning rate where it is kept.
    lr = torch.tensor(recipe.lr, device=stacked[0].device) if on_gpu else recipe.lr
    adam = torch.optim.Adam(others, lr=lr, betas=betas, foreach=True, capturable=on_gpu)
    soap = SOAP(hidden, lr=recipe.lr, betas=(0.95, 0.95)) if hidden else None
    groups = [*adam.param_groups, *(soap.param_groups if soap else [])]
    decay = (recipe.lr_final / recipe.lr) ** (1.0 / recipe.steps)

    def step() -> None:
        for p, grad in zip(stacked, gradients(), strict=True):
            p.grad = grad
        adam.step()

    take = captured(step) if on_gpu else step
    for _ in range(recipe.steps):
        take()
        if soap:  # whose decompositions cannot be captured
            soap.step()
        for group in groups:
            group["lr"] *= decay


def captured(step: Callable[[], None]) -> Callable[[], None]:
    """A step as a CUDA graph; the three with which it is tried count for nothing, and stay."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def side_by_side(config: Config, seeds: int, device: str) -> tuple[Pairs, dict[str, float]]:
    """Pairs of so many seeds, trained by the default recipe, and the seconds of its parts."""
    start = time.perf_counter()
    pairs = [build(replace(config, seed=seed))[:2] for seed in range(seeds)]
    first_recipe, main_recipe = config.recipe.stages()
    firsts = [first_layer(model, guide, config.data) for model, guide in pairs]
    built = time.perf_counter()
    torch.manual_seed(0)
    train_stage(firsts, config, first_recipe, device)
    begun = time.perf_counter()
    for model, guide in pairs:
        learned = learned_start(guide, config.data)
        for program in (model, guide):
            program.reset_parameters(learned, config.prob)
    between = time.perf_counter()
    train_stage(pairs, config, main_recipe, device)
    end = time.perf_counter()
    return pairs, {"building_s": built - start + between - begun, "training_s": begun - built + end - between}


def alone(config: Config, device: Device) -> tuple[Pairs, dict[str, float]]:
    """Seed 0, trained by `fit`."""
    config = replace(config, device=device)
    run = fit(*build(config), config)
    return [(run.model, run.guide)], {"building_s": 0.0, "training_s": run.seconds}


def judged(pickled: bytes, config: Config) -> float:
    """The exact loss; infinite if there is none."""
    torch.set_num_threads(1)
    try:
        return float(evaluate(*pickle.loads(pickled), config.data)["loss"])
    except ArithmeticError:
        return float("inf")
