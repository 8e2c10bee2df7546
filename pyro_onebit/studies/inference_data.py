"""A run as ArviZ InferenceData."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pyro_onebit.diagnostics import khat, load_arviz
from pyro_onebit.files import write_whole
from pyro_onebit.programs import BLOCK, Pair
from pyro_onebit.reproducibility import seeded
from pyro_onebit.training import Run

if TYPE_CHECKING:
    from arviz import InferenceData


#: Dimensions of x beyond which draws of x would only repeat, at great length, what a few say.
_MAX_PREDICTED = 100


def to_inference_data(run: Run, draws: int = 2000, seed: int = 0) -> InferenceData:
    """Draws of every latent for each codeword, with what they are weighed by.

    Arguments:
        run: The run.
        draws: Draws a codeword.
        seed: Seed of the draws; torch's generator is left as it was.

    Returns:
        Groups ``posterior`` (draws of q, each latent of dims chain, draw, codeword), ``prior``,
        ``posterior_predictive`` (``x``, its first dimensions), ``log_likelihood`` (``x``: log p(x|z1),
        nats, summed over dimensions), ``sample_stats`` (``log_weight``: log p(x, z) - log q(z|x)),
        ``observed_data``, ``constant_data`` (of each codeword: ``prob``, ``pareto_k``, the k̂ of its draws'
        weights, and, if the run has been judged, ``log_evidence``, exact) and ``training_history`` (the columns
        of ``history.csv``); attributes say library, version and configuration.
    """
    az = load_arviz()
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
    coords = {"codeword": np.arange(len(x)), "x_dim": np.arange(shown)}
    by_codeword = {name: ["codeword"] for name in (*pair.latents, "log_weight")}
    data = az.from_dict(
        posterior={name: _chain(value) for name, value in latents.items()},
        posterior_predictive={"x": _chain(predicted).astype(np.int8)},
        sample_stats={"log_weight": _chain(log_w)},
        observed_data={"x": x[:, :shown].numpy().astype(np.int8)},
        coords=coords,
        dims={"x": ["codeword", "x_dim"], **by_codeword},
    )
    # Apart, because here the same names have other dimensions.
    data.extend(az.from_dict(log_likelihood={"x": _chain(likelihood)}, coords=coords, dims={"x": ["codeword"]}))
    data.extend(az.from_dict(prior={name: _chain(value) for name, value in priors.items()}))
    constants = {"prob": run.data.probs.numpy(), "pareto_k": khat(log_w).numpy()}
    if run.truth is not None:
        constants["log_evidence"] = run.truth.log_evidence.numpy()
    data.add_groups(
        constant_data=_columns(az, constants, "codeword"), training_history=_columns(az, run.history, "row")
    )
    data.attrs.update(
        inference_library="pyro_onebit",
        inference_library_version=version("pyro-onebit"),
        config=json.dumps(asdict(run.config)),
    )
    return data


def _columns(az: Any, columns: Mapping[str, Any], dim: str) -> Any:
    """Columns of equal length as a dataset of one dimension."""
    dims = {name: [dim] for name in columns}
    return az.dict_to_dataset(
        {name: np.asarray(values) for name, values in columns.items()}, dims=dims, default_dims=[]
    )


def _chain(draws: Tensor) -> np.ndarray:
    """One chain: runs of other seeds differ by the latent's sign, so they are not its chains."""
    return draws[None].numpy()


def write_inference_data(run: Run, path: str | Path) -> None:
    """Write the run's InferenceData as netCDF, whole or not at all."""
    path = Path(path)
    with tempfile.TemporaryDirectory() as directory:
        draft = Path(directory) / path.name
        to_inference_data(run).to_netcdf(str(draft), engine="h5netcdf")
        write_whole(path, draft.read_bytes())
