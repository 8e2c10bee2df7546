"""Whether a program is a function of each row alone, and how it can be run for many values at once."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_onebit.errors import InputError, ProgramError
from pyro_onebit.programs.conditional import log_density
from pyro_onebit.programs.program import Latents, Program

#: Places at which a program is tried in more ways than one.
_PROBES = 7


def choose_layout(program: Program) -> None:
    """Find a way to run a program for many latents that agrees with running it row by row, as in training."""
    values = {name: torch.randn(_PROBES, len(program.x), dtype=torch.float64) for name in program.latents}
    program.leading = False
    singles = [{name: value[i : i + 1] for name, value in values.items()} for i in range(_PROBES)]
    want = torch.cat([_log_probs(program, single, program.x) for single in singles])
    for program.leading, program.splits in ((True, True), (False, True), (True, False)):
        try:
            found = [_log_probs(program, values, program.x)]
            if program.splits:
                words = [slice(c, c + 1) for c in range(len(program.x))]
                alone = [_log_probs(program, {k: v[:, c] for k, v in values.items()}, program.x[c]) for c in words]
                found.append(torch.cat(alone, -1))
        except Exception:  # whatever a program makes of shapes that it does not expect
            continue
        if all(_close(table, want) for table in found) and (program.splits or _is_of_own_row(program, values)):
            return
    raise ProgramError(
        f"the {program.what}'s rows hang on each other, or on their number: the density of a row's latent must be "
        f"a function of that row alone"
    )


def _is_of_own_row(program: Program, values: Latents) -> bool:
    """Whether a row's densities stay what they are when all other rows become like it."""
    want = _log_probs(program, values, program.x)
    alike = [_log_probs(program, values, row.expand_as(program.x))[..., c] for c, row in enumerate(program.x)]
    return _close(torch.stack(alike, -1), want)


def check_prior(model: Program) -> None:
    """Refuse a model whose latents' densities depend on x, with a `ProgramError`."""
    values = {name: torch.randn(_PROBES, len(model.x), dtype=torch.float64) for name in model.latents}
    same = {name: value[:, :1].expand_as(value) for name, value in values.items()}
    table = _log_probs(model, same, model.x)[:, : len(model.latents)]
    if not _close(table, table[..., :1].expand_as(table)):
        raise ProgramError("the model's prior of its latents depends on x; it must not")


def check_data(x: Tensor, probs: Tensor) -> None:
    """Refuse what is no set of distinct codewords with their probabilities, with an `InputError`."""
    if x.dim() != 2 or probs.shape != x.shape[:1] or len(x.unique(dim=0)) < len(x):
        raise InputError(
            f"data has codewords {tuple(x.shape)} and probs {tuple(probs.shape)}; "
            f"they must be distinct rows (M, ndims), each with its probability (M,)"
        )
    if not bool((probs > 0).all()) or abs(float(probs.sum()) - 1.0) > 1e-6:
        raise InputError(f"data has probs {probs.tolist()}; they must be positive and sum to 1")


def _log_probs(program: Program, values: Latents, x: Tensor) -> Tensor:
    """The log-density of every site, latents first, ``(N, sites, m)``."""
    sites, shape = program.run(values, x), (len(next(iter(values.values()))), len(x))
    tables = []
    for name in (*sorted(program.latents), *program.observed):
        table = log_density(sites[name]["fn"], sites[name]["value"])
        tables.append(table.expand(shape) if program.leading else table.reshape(shape))
    return torch.stack(tables, 1)


def _close(a: Tensor, b: Tensor) -> bool:
    both = torch.isnan(a) & torch.isnan(b)
    return a.shape == b.shape and bool((both | torch.isclose(a, b, rtol=1e-9, atol=1e-9)).all())
