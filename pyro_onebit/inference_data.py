"""A run as ArviZ InferenceData."""

from __future__ import annotations

import json
import tempfile
import warnings
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pyro_onebit.files import write_whole
from pyro_onebit.training import Run

if TYPE_CHECKING:
    from arviz import InferenceData

__all__ = ["to_inference_data", "write_inference_data"]

#: Dimensions of x beyond which draws of x would only repeat, at great length, what a few say.
_MAX_PREDICTED = 100


def _arviz() -> Any:
    # Takes seconds to import, and announces its next major version once a day.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        import arviz

    return arviz


@torch.no_grad()
def to_inference_data(run: Run, draws: int = 2000, seed: int = 0) -> InferenceData:
    """Draws of every latent for each codeword, with what they are weighed by.

    Arguments:
        run: The run.
        draws: Draws a codeword.
        seed: Seed of the draws; torch's generator is left as it was.

    Returns:
        Groups ``posterior`` (draws of q; ``z1`` and ``z2`` of dims chain, draw, codeword), ``prior``,
        ``posterior_predictive`` (``x``, its first dimensions), ``log_likelihood`` (``x``: log p(x|z1),
        nats, summed over dimensions), ``sample_stats`` (``log_weight``: log p(x, z) - log q(z|x)),
        ``observed_data``; attributes say library, version and configuration.
    """
    az = _arviz()
    x = run.data.codewords
    model: Any = run.model
    guide: Any = run.guide
    top = torch.distributions.Normal(0.0, 1.0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        q_z1 = guide.q_z1(x)
        z1 = q_z1.sample((draws,))
        latents, priors = {"z1": z1}, {}
        log_weight = -q_z1.log_prob(z1)
        if run.config.layers == 2:
            q_z2 = guide.q_z2(z1)
            z2 = q_z2.sample()
            latents["z2"], priors["z2"] = z2, torch.randn(draws, 1)
            priors["z1"] = model.p_z1(priors["z2"]).sample()
            log_weight = log_weight - q_z2.log_prob(z2) + model.p_z1(z2).log_prob(z1) + top.log_prob(z2).squeeze(-1)
        else:
            priors["z1"] = torch.randn(draws, 1)
            log_weight = log_weight + top.log_prob(z1).squeeze(-1)
        # Block by block: (draws, 2, ndims) at once would be gigabytes for a large ndims.
        shown = min(run.data.ndims, _MAX_PREDICTED)
        log_likelihood, predicted = [], []
        for block in z1.split(max(1, 2**22 // (2 * run.data.ndims))):
            p_x = model.p_x(block)
            log_likelihood.append(p_x.log_prob(x))
            predicted.append(torch.bernoulli(p_x.mean[..., :shown]))
        likelihood = torch.cat(log_likelihood)
    coords = {"codeword": [0, 1], "x_dim": np.arange(shown)}
    by_codeword = {name: ["codeword"] for name in ("z1", "z2", "log_weight")}
    data = az.from_dict(
        posterior={name: _chain(value.squeeze(-1)) for name, value in latents.items()},
        posterior_predictive={"x": _chain(torch.cat(predicted)).astype(np.int8)},
        sample_stats={"log_weight": _chain(log_weight + likelihood)},
        observed_data={"x": x[:, :shown].numpy().astype(np.int8)},
        coords=coords,
        dims={"x": ["codeword", "x_dim"], **by_codeword},
    )
    # Apart, because here the same names have other dimensions.
    data.extend(az.from_dict(log_likelihood={"x": _chain(likelihood)}, coords=coords, dims={"x": ["codeword"]}))
    data.extend(az.from_dict(prior={name: _chain(value.squeeze(-1)) for name, value in priors.items()}))
    data.attrs.update(
        inference_library="pyro_onebit",
        inference_library_version=version("pyro-onebit"),
        config=json.dumps(asdict(run.config)),
    )
    return data


def _chain(draws: Tensor) -> np.ndarray:
    """One chain: runs of other seeds differ by the latent's sign, so they are not its chains."""
    return draws[None].numpy()


def write_inference_data(run: Run, path: Path) -> None:
    """Write the run's InferenceData as netCDF, whole or not at all."""
    with tempfile.TemporaryDirectory() as directory:
        draft = Path(directory) / path.name
        to_inference_data(run).to_netcdf(str(draft), engine="h5netcdf")
        write_whole(path, draft.read_bytes())
