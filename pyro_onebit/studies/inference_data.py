"""A run as ArviZ InferenceData."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pyro_onebit.diagnostics import is_arviz_1, khat, load_arviz
from pyro_onebit.exact import solve
from pyro_onebit.files import claim, write_whole
from pyro_onebit.programs import BLOCK, Pair
from pyro_onebit.reproducibility import seeded
from pyro_onebit.training import Run

if TYPE_CHECKING:
    from xarray import Dataset


#: What its files are recognised by: the library's name is an attribute.
INFERENCE_DATA_MARK = rb"\A\x89HDF[\s\S]*pyro_onebit"
#: Dimensions of x beyond which draws of x would only repeat, at great length, what a few say.
_MAX_PREDICTED = 100


def to_inference_data(run: Run, draws: int = 2000, seed: int = 0) -> Any:
    """Draws of every latent for each codeword, with what they are weighed by.

    There is no group ``log_likelihood``, from which ``az.loo`` and ``az.compare`` would compute something that means
    nothing here: given its own latents, a datum's likelihood says how well they were fitted to it, not how well the
    model predicts (Merkle, Furr and Rabe-Hesketh 2019), and the codewords are all data there can be. Models are
    compared by ``log_evidence``, which is exact.

    Arguments:
        run: The run.
        draws: Draws per codeword.
        seed: Seed of the draws; torch's generator is left as it was.

    Returns:
        InferenceData, or with ArviZ 1 an xarray ``DataTree``, of groups ``posterior`` (draws of q, each latent of dims
        chain, draw, codeword, the last one named by its bits where they are several), ``prior``,
        ``posterior_predictive`` (``x``, its first dimensions), ``sample_stats``
        (``log_p_x_given_z``, log p(x|z), nats, summed over dimensions, and ``log_weight``, log p(x, z) - log q(z|x)),
        ``observed_data``, ``constant_data`` (of each codeword: ``prob``, ``pareto_k``, the k̂ of its draws' weights, and
        ``log_evidence``, exact) and ``training_history`` (the columns of ``history.csv``); attributes say library,
        version and configuration.
    """
    pair = Pair(run.model, run.guide, run.data)
    x = run.data.codewords
    with seeded(seed):
        latents = pair.draw(pair.guide, draws)
        likelihood = pair.likelihood(latents)
        log_w = pair.at(latents, likelihood).log_weight
        priors = {name: value[:, 0] for name, value in pair.draw(pair.model, draws).items()}
        # Block by block: (draws, M, ndims) at once would be gigabytes for a large ndims.
        shown = min(x.shape[-1], _MAX_PREDICTED)
        blocks = torch.arange(draws).split(max(1, BLOCK // x.numel()))
        predicted = torch.cat([pair.draw_x({k: v[rows] for k, v in latents.items()})[..., :shown] for rows in blocks])
    truth = run.truth or solve(run.model, run.guide, run.data)
    constants = {"prob": run.data.probs, "pareto_k": khat(log_w), "log_evidence": truth.log_evidence}
    words = {"codeword": np.array(run.data.names)} if len(x) > 2 else {}
    history = {name: torch.tensor(values, dtype=torch.float64) for name, values in run.history.items()}
    drawn, binary = ("chain", "draw", "codeword"), torch.int8
    groups = {
        "posterior": _dataset(drawn, _chain(latents), words),
        "prior": _dataset(drawn[:2], _chain(priors)),
        "posterior_predictive": _dataset((*drawn, "x_dim"), _chain({"x": predicted.to(binary)}), words),
        "sample_stats": _dataset(drawn, _chain({"log_p_x_given_z": likelihood, "log_weight": log_w}), words),
        "observed_data": _dataset(("codeword", "x_dim"), {"x": x[:, :shown].to(binary)}, words),
        "constant_data": _dataset(("codeword",), constants, words),
        "training_history": _dataset(("row",), history),
    }
    if is_arviz_1():
        from xarray import DataTree

        data: Any = DataTree.from_dict(groups)
    else:
        data = load_arviz().InferenceData(**groups)
    data.attrs.update(
        inference_library="pyro_onebit",
        inference_library_version=version("pyro-onebit"),
        config=json.dumps(asdict(run.config)),
    )
    return data


def _chain(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One chain: runs of other seeds differ by the latent's sign, so they are not its chains."""
    return {name: draws[None] for name, draws in values.items()}


def _dataset(
    dims: tuple[str, ...], values: Mapping[str, Tensor], names: Mapping[str, np.ndarray] = MappingProxyType({})
) -> Dataset:
    """Variables of the same dimensions, each of which is numbered, or has names."""
    from xarray import Dataset  # which takes most of a second

    sizes = next(iter(values.values())).shape if values else ()
    coords = {dim: names.get(dim, np.arange(size)) for dim, size in zip(dims, sizes, strict=False)}
    return Dataset({name: (dims, value.numpy()) for name, value in values.items()}, coords)


def write_inference_data(run: Run, path: str | Path) -> None:
    """Write the run's InferenceData as netCDF, whole or not at all.

    Raises:
        InputError: If something is there that is not ours.
        WriteError: If the directory cannot be written.
    """
    path = Path(path)
    claim(path, INFERENCE_DATA_MARK)
    # Beside it: where others keep what is temporary there may be no room.
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".onebit-") as directory:
        draft = Path(directory) / path.name
        to_inference_data(run).to_netcdf(str(draft), engine="h5netcdf")
        write_whole(path, draft.read_bytes(), INFERENCE_DATA_MARK)
