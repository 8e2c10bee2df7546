"""A run on disk: config, parameters, history and metrics, each written whole or not at all; and how it gets there."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from pyro_onebit.brought import ByHand, as_module, check_known, origins_of
from pyro_onebit.data import BitsData
from pyro_onebit.errors import InputError, TrainingError
from pyro_onebit.files import (
    check_writable,
    claim,
    is_locked,
    lock,
    read_json,
    read_table,
    read_whole,
    restored,
    table_mark,
    write_json,
    write_table,
    write_whole,
)
from pyro_onebit.guides import Guide
from pyro_onebit.registry import GUIDES, MODELS
from pyro_onebit.studies.checkpoint import STATE_MARK, WRITER, StateFile
from pyro_onebit.studies.inference_data import INFERENCE_DATA_MARK
from pyro_onebit.studies.schema import complete_metrics
from pyro_onebit.training import AnyConfig, Config, Recipe, Run, build, differences, fit, identity_of

#: Raised when the meaning of what a run directory holds changes. What is added does not change it: it has a default.
_FORMAT = 4
#: In a run's directory while it is trained.
_LOCK, _PROGRESS = ".lock", "progress.safetensors"
_CONFIG, _PARAMETERS, _HISTORY, _METRICS = "config.json", "parameters.safetensors", "history.csv", "metrics.json"
_POSTERIOR = "posterior.nc"
#: What each file of a run is recognised by: one that is not ours is not replaced.
_MARKS = {
    _CONFIG: rb'"format": \d+,\s+"version": ',
    _PARAMETERS: STATE_MARK,
    _HISTORY: table_mark(["stage", "step"]),
    _METRICS: rb'"kl_aggregate": ',
    _PROGRESS: STATE_MARK,
    _POSTERIOR: INFERENCE_DATA_MARK,
}
#: Ten times what the longest has.
_MAX_HISTORY_BYTES = 2**20
#: The packages, beside this one, whose versions a run's last digits may hang on.
_PACKAGES = ("pyro-ppl", "torch", "numpy", "scipy")


def save_run(run: Run, path: str | Path) -> None:
    """Write ``config.json``, ``parameters.safetensors``, ``history.csv`` and, if judged, ``metrics.json``.

    Raises:
        InputError: If the directory cannot be written, or a figure is infinite, as no trained run's is.
    """
    path, metrics = Path(path), complete_metrics(run.metrics) if run.metrics else None
    _write_config(run.config, run.recipe, path, {"model": run.model, "guide": run.guide})
    state = nn.ModuleDict({"model": run.model, "guide": run.guide}).state_dict()
    # Copies, for a file cannot hold tensors that share their memory.
    tensors = {name: value.clone(memory_format=torch.contiguous_format) for name, value in state.items()}
    write_whole(path / _PARAMETERS, save(tensors, WRITER), _MARKS[_PARAMETERS])
    write_table(path / _HISTORY, pd.DataFrame(run.history))
    if metrics:
        write_json(path / _METRICS, metrics, _MARKS[_METRICS])


@cache
def _versions() -> dict[str, str]:
    return {name: version(name) for name in _PACKAGES} | {"python": platform.python_version()}


def _write_config(config: AnyConfig, recipe: Recipe | None, path: Path, programs: Mapping[str, Any]) -> None:
    described: dict[str, Any] = {"format": _FORMAT, "version": version("pyro-onebit"), "versions": _versions()}
    if origins := origins_of(config, programs):
        described["origins"] = origins
    if recipe is None:
        described["by_hand"] = asdict(config)
    else:
        described |= {"config": asdict(config), "recipe": asdict(recipe)}
    write_json(path / _CONFIG, described, _MARKS[_CONFIG])


def claim_run(path: str | Path, *, force: bool = False) -> None:
    """Find out whether a run may be written to a directory.

    Arguments:
        path: The directory.
        force: Remove files that have a run's names and are not ours.

    Raises:
        InputError: If something there is not ours.
    """
    path = Path(path)
    claim(path / _METRICS, _MARKS[_METRICS], force=force)
    # Of a finished run nothing else is written.
    for name in [_POSTERIOR] if is_finished(path) else _MARKS:
        claim(path / name, _MARKS[name], force=force)


def is_finished(path: str | Path) -> bool:
    """Whether a directory holds a whole run: the metrics are written last."""
    return (Path(path) / _METRICS).exists()


def finished_runs(out: str | Path) -> list[Path]:
    """The directories of a study's finished runs, or the directory itself if it is a run's."""
    out = Path(out)
    return [out] if is_finished(out) else sorted(path.parent for path in (out / "runs").glob(f"*/{_METRICS}"))


def is_busy(path: Path) -> bool:
    """Whether another process is training a run here now."""
    return is_locked(path / _LOCK)


def train(config: Config, path: str | Path, *, quiet: bool = True, on_step: Callable[[int], None] | None = None) -> Run:
    """A configuration's run: the one that is there, or else trained, from where an earlier training was left.

    Two processes that want the same run at the same time train it once.

    Arguments:
        config: What to train.
        path: The run's directory.
        quiet: Show no progress bar.
        on_step: Called with its number after each step.

    Raises:
        TrainingError: If training fails; the last parameters before it are kept.
        InputError: If the directory holds another run, or cannot be written.
    """
    path = Path(path)
    check_writable(path)
    claim_run(path)
    with lock(path / _LOCK):
        _acquire(path, config)
        state = StateFile(path / _PROGRESS, config)
        if is_finished(path):
            run = load_run(path)
        else:
            try:
                run = fit(*build(config), config, quiet=quiet, on_step=on_step, checkpoint=state)
            except TrainingError as error:
                save_run(error.run, path)
                raise
            save_run(run, path)
        state.clear()
    return run


def _acquire(path: Path, config: Config) -> None:
    """Keep what is trained in its directory, or refuse a directory that holds another run."""
    try:
        there, _ = _read_config(path / _CONFIG)
    except InputError:
        if is_finished(path):
            raise
        # There is none, or one of another version, whose unfinished training is no use to this one.
        _write_config(config, config.recipe, path, {})
        return
    if there != config:
        raise InputError(f"{path} holds another run ({differences(there, config)}); choose another directory")


def load_config(path: str | Path) -> AnyConfig:
    """Read what a run's directory says of its configuration.

    Raises:
        InputError: If it holds no run, a damaged one, or one of a version that is not known here.
    """
    return _read_config(Path(path) / _CONFIG)[0]


def load_run(path: str | Path, *, model: Any = None, guide: Any = None) -> Run:
    """Read a run that `save_run` wrote.

    Arguments:
        path: The run's directory.
        model: A module or function to put the model's parameters into, in place; None: one is made by its name.
        guide: The guide's, likewise. A run that was trained by hand needs both where they are not registered.

    Raises:
        InputError: If the directory holds no run, a damaged one, one of a version that is not known here, or one
            whose programs have to be given.
    """
    path = Path(path)
    if not (path / _CONFIG).exists():
        raise InputError(f"cannot read {path}: it holds no run; a run's directory is one that `onebit train` wrote")
    config, recipe = _read_config(path / _CONFIG)
    model, guide, data = _programs(config, recipe, model, guide)
    _load_parameters(path, model, guide)
    metrics = read_metrics(path / _METRICS, config) if is_finished(path) else {}
    history = read_history(path)
    lists = {str(name): values.tolist() for name, values in history.items()}
    seconds = math.nan if (known := metrics.get("seconds")) is None else float(known)
    return Run(model, guide, data, config, recipe, lists, seconds, metrics)


def _programs(
    config: AnyConfig, recipe: Recipe | None, model: Any, guide: Any
) -> tuple[nn.Module, nn.Module, BitsData]:
    """Those of a run, as given or else made by name."""
    if isinstance(config, Config):
        own_model, own_guide, data = build(config, recipe)
        return own_model if model is None else model, own_guide if guide is None else guide, data
    data = config.data
    given = (config.program(MODELS) if model is None else model, config.program(GUIDES) if guide is None else guide)
    model, guide = (as_module(program, data.codewords) for program in given)
    if isinstance(guide, Guide):
        guide.bind_model(model)
    return model, guide, data


def read_metrics(path: str | Path, config: AnyConfig | None = None) -> dict[str, Any]:
    """Read a run's ``metrics.json``.

    Arguments:
        path: The file.
        config: The run's configuration, if the metrics must be seen to be its.

    Raises:
        InputError: If it cannot be read, is damaged, or is another run's.
    """
    content = read_json(Path(path))
    try:
        metrics = complete_metrics(content)
    except InputError as error:
        raise InputError(f"{path} is damaged: {error}") from None
    for name, own in identity_of(config).items() if config else ():
        if metrics[name] != own:
            raise InputError(f"{path} is damaged, or not of this run: its {name} is {metrics[name]!r}")
    return metrics


def read_history(path: str | Path) -> pd.DataFrame:
    """Read ``history.csv`` in a run's directory.

    Raises:
        InputError: If it cannot be read, or is damaged.
    """
    path = Path(path)
    history = read_table(path / _HISTORY, _MAX_HISTORY_BYTES)
    if not all(pd.api.types.is_numeric_dtype(column) and column.notna().all() for _, column in history.items()):
        raise InputError(f"{path / _HISTORY} is damaged: it must hold numbers alone")
    return history


def read_versions(path: Path) -> dict[str, str]:
    """Of a run's ``config.json``: the versions of what trained it, by name.

    Raises:
        InputError: If it cannot be read, or is damaged.
    """
    content = read_json(path)
    versions = content.get("versions", {})
    if not isinstance(versions, dict):
        raise InputError(f"{path} is damaged: its versions are {versions!r}"[:200])
    return {"pyro-onebit": str(content.get("version")), **{str(name): str(value) for name, value in versions.items()}}


def _read_config(path: Path) -> tuple[AnyConfig, Recipe | None]:
    """What a run's ``config.json`` says, and how the run was trained; None: by hand."""
    content = read_json(path)
    if content.get("format") != _FORMAT:
        raise InputError(
            f"{path} has format {content.get('format')!r}, written by version {content.get('version')!r}; "
            f"version {version('pyro-onebit')} reads format {_FORMAT}; train it again"
        )
    check_known(content.get("config"), content.get("origins"))
    try:
        if "by_hand" in content:
            return restored(ByHand, content["by_hand"], "by_hand"), None
        return restored(Config, content.get("config"), "config"), restored(Recipe, content.get("recipe"), "recipe")
    except InputError as error:
        raise InputError(f"{path} is damaged, or of a later version: {error}") from None


def _load_parameters(path: Path, model: nn.Module, guide: nn.Module) -> None:
    """Put a run's parameters in place."""
    programs, file = nn.ModuleDict({"model": model, "guide": guide}), path / _PARAMETERS
    expected = sum(p.numel() * p.element_size() for p in programs.state_dict().values())
    # A file's own overhead is a few hundred bytes per tensor.
    content = read_whole(file, 2 * expected + 2**20)
    try:
        programs.load_state_dict(load(content))
    except SafetensorError as error:
        raise InputError(f"{file} is damaged: {str(error)[:120]}") from None
    except Exception as error:  # whatever is there in place of the parameters
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{file} is damaged, or not of this run: {reason[:120]}") from None
    if not all(torch.isfinite(p).all() for p in programs.state_dict().values()):
        raise InputError(f"{file} is damaged: a parameter is not finite")
