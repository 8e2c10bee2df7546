"""A run on disk: config, parameters, history and metrics, each written whole or not at all; and how it gets there."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from pyro_onebit.errors import InputError, TrainingError
from pyro_onebit.files import (
    check_writable,
    is_locked,
    load_tensors,
    lock,
    read_json,
    read_table,
    read_whole,
    restored,
    write_json,
    write_table,
    write_whole,
)
from pyro_onebit.guides import Guide
from pyro_onebit.models import Model
from pyro_onebit.studies.checkpoint import StateFile
from pyro_onebit.studies.schema import complete_metrics
from pyro_onebit.training import IDENTITY, Config, Recipe, Run, Settings, build, differences, fit

#: Raised when the meaning of what a run directory holds changes. What is added does not change it: it has a default.
_FORMAT = 3
#: In a run's directory while it is trained.
_LOCK, _PROGRESS = ".lock", "progress.pt"
_CONFIG, _PARAMETERS, _HISTORY, _METRICS = "config.json", "parameters.safetensors", "history.csv", "metrics.json"
#: The parameters' file of format 2.
_PARAMETERS_2 = "checkpoint.pt"
#: What is left out of a directory's name.
_UNFIT = re.compile(r"[^\w.=-]+")
#: The packages, beside this one, whose versions a run's last digits may hang on.
_PACKAGES = ("pyro-ppl", "torch", "numpy", "scipy")


def save_run(run: Run, path: str | Path) -> None:
    """Write ``config.json``, ``parameters.safetensors``, ``history.csv`` and, if judged, ``metrics.json``.

    Raises:
        InputError: If the directory cannot be written.
    """
    path = Path(path)
    _write_config(run.config, run.recipe, path)
    states = {"model": run.model.state_dict(), "guide": run.guide.state_dict()}
    tensors = {f"{name}.{key}": value.contiguous() for name, state in states.items() for key, value in state.items()}
    write_whole(path / _PARAMETERS, save(tensors))
    write_table(path / _HISTORY, pd.DataFrame(run.history))
    if run.metrics:
        write_json(path / _METRICS, complete_metrics(run.metrics))


def _write_config(config: Config, recipe: Recipe, path: Path) -> None:
    described = {
        "format": _FORMAT,
        "version": version("pyro-onebit"),
        "versions": {name: version(name) for name in _PACKAGES} | {"python": platform.python_version()},
        "config": asdict(config),
        "recipe": asdict(recipe),
    }
    write_json(path / _CONFIG, described)


def is_finished(path: Path) -> bool:
    """Whether a directory holds a whole run: the metrics are written last."""
    return (path / _METRICS).exists()


def is_begun(path: Path) -> bool:
    """Whether a run's training began here and has not ended, even if its process is gone."""
    return (path / _LOCK).exists()


def is_busy(path: Path) -> bool:
    """Whether another process is training a run here now."""
    return is_locked(path / _LOCK)


def run_name(config: Config) -> str:
    """The directory of a run within a study: says what the run is, and sorts as a reader would."""
    usual = Config(guide=config.guide, layers=config.layers, objective=config.objective)
    unusual = "".join(
        f"-{_UNFIT.sub('_', value)}" if isinstance(value, str) else f"-{name}{value:g}"
        for name in ("prob", "model", *(f.name for f in fields(Settings) if f.name != "prob"))
        if (value := getattr(config, name)) != getattr(usual, name)
    )
    return f"layers{config.layers}-ndims{config.ndims:06d}{unusual}-{config.guide}-{config.objective}-seed{config.seed}"


def run_path(out: Path, config: Config) -> Path:
    """The directory of a run of a study that is in `out`."""
    return out / "runs" / run_name(config)


def train(config: Config, path: Path, *, quiet: bool = True) -> Run:
    """A configuration's run: the one that is there, or else trained, from where an earlier training was left.

    Two processes that want the same run at the same time train it once.

    Arguments:
        config: What to train.
        path: The run's directory.
        quiet: Show no progress bar.

    Raises:
        TrainingError: If training fails; the last parameters before it are kept.
        InputError: If the directory holds another run, or cannot be written.
    """
    check_writable(path)
    with lock(path / _LOCK):
        _acquire(path, config)
        state = StateFile(path / _PROGRESS, config)
        if is_finished(path):
            run = load_run(path)
        else:
            try:
                run = fit(*build(config), config, quiet=quiet, checkpoint=state)
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
        _write_config(config, config.recipe, path)
        return
    if there != config:
        raise InputError(f"{path} holds another run ({differences(there, config)}); choose another directory")


def load_config(path: Path) -> Config:
    """Read what a run's directory says of its configuration.

    Raises:
        InputError: If it holds no run, a damaged one, or one of a version that is not known here.
    """
    return _read_config(path / _CONFIG)[0]


def load_run(path: str | Path) -> Run:
    """Read a run that `save_run` wrote, this version's or, since format 2, an earlier one's.

    Raises:
        InputError: If the directory holds no run, a damaged one, or one of a version that is not known here.
    """
    path = Path(path)
    if not (path / _CONFIG).exists():
        raise InputError(f"cannot read {path}: it holds no run; a run's directory is one that `onebit train` wrote")
    config, recipe = _read_config(path / _CONFIG)
    model, guide, data = build(config, recipe)
    _load_parameters(path, model, guide)
    metrics = read_metrics(path / _METRICS, config) if is_finished(path) else {}
    history = read_history(path)
    lists = {str(name): values.tolist() for name, values in history.items()}
    return Run(model, guide, data, config, recipe, lists, float(metrics.get("seconds", 0.0)), metrics)


def read_metrics(path: Path, config: Config | None = None) -> dict[str, Any]:
    """Read a run's ``metrics.json``.

    Arguments:
        path: The file.
        config: The run's configuration, if the metrics must be seen to be its.

    Raises:
        InputError: If it cannot be read, is damaged, or is another run's.
    """
    try:
        metrics = complete_metrics(read_json(path))
    except InputError as error:
        raise InputError(str(error) if str(path) in str(error) else f"{path} is damaged: {error}") from None
    for name in IDENTITY if config else ():
        if metrics[name] != getattr(config, name):
            raise InputError(f"{path} is damaged, or not of this run: its {name} is {metrics[name]!r}")
    return metrics


def read_history(path: Path) -> pd.DataFrame:
    """Read ``history.csv`` in a run's directory.

    Raises:
        InputError: If it cannot be read, or is damaged.
    """
    history = read_table(path / _HISTORY)
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


def _read_config(path: Path) -> tuple[Config, Recipe]:
    """What a run's ``config.json`` says, and how the run was trained."""
    content = read_json(path)
    if content.get("format") == 2:
        content = _from_format_2(content)
    if content.get("format") != _FORMAT:
        raise InputError(
            f"{path} has format {content.get('format')!r}, written by version {content.get('version')!r}; "
            f"version {version('pyro-onebit')} reads formats 2 and {_FORMAT}"
        )
    try:
        return restored(Config, content.get("config"), "config"), restored(Recipe, content.get("recipe"), "recipe")
    except InputError as error:
        raise InputError(f"{path} is damaged, or of a later version: {error}") from None


def _from_format_2(content: Mapping[str, Any]) -> dict[str, Any]:
    """Format 2 had the configuration's values among the file's own."""
    own = ("format", "version", "versions", "recipe")
    config = {name: value for name, value in content.items() if name not in own}
    return {"format": 3, "config": config, "recipe": content.get("recipe")}


def _load_parameters(path: Path, model: Model, guide: Guide) -> None:
    """Put a run's parameters in place."""
    programs = {"model": model, "guide": guide}
    expected = sum(p.numel() * p.element_size() for module in programs.values() for p in module.state_dict().values())
    # A file's own overhead is a few hundred bytes a tensor.
    limit = 2 * expected + 2**20
    file = path / _PARAMETERS
    if not file.exists() and (path / _PARAMETERS_2).exists():
        file = path / _PARAMETERS_2
        states: dict[str, Any] = load_tensors(file, limit)
    else:
        states = _load_safetensors(file, limit)
    try:
        for name, program in programs.items():
            program.load_state_dict(states[name])
    except Exception as error:  # whatever is there in place of the parameters
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"{file} is damaged, or not of this run: {reason[0][:120]}") from None
    if not all(torch.isfinite(p).all() for module in programs.values() for p in module.state_dict().values()):
        raise InputError(f"{file} is damaged: a parameter is not finite")


def _load_safetensors(file: Path, limit: int) -> dict[str, dict[str, Tensor]]:
    try:
        tensors = load(read_whole(file, limit))
    except SafetensorError as error:
        raise InputError(f"{file} is damaged: {str(error)[:120]}") from None
    states: dict[str, dict[str, Tensor]] = {"model": {}, "guide": {}}
    for key, value in tensors.items():
        name, _, own = key.partition(".")
        states.setdefault(name, {})[own] = value
    return states
