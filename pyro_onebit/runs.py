"""A run on disk: config, parameters, history and metrics, each written whole or not at all; and how it gets there."""

from __future__ import annotations

import csv
import io
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pyro_onebit.config import Config, differences
from pyro_onebit.data import InputError
from pyro_onebit.files import check_writable, held, is_held, load_tensors, read_whole, write_whole
from pyro_onebit.progress import Progress
from pyro_onebit.training import Run, TrainingError, build, fit

__all__ = [
    "COLUMNS",
    "is_begun",
    "is_busy",
    "is_finished",
    "load_run",
    "read_metrics",
    "read_table",
    "read_versions",
    "run_name",
    "run_path",
    "save_run",
    "train",
    "write_table",
]

#: Raised when what a run directory holds, or means, changes.
FORMAT = 2
#: Columns of ``results.csv`` that say which run it is, as its configuration does.
_IDENTITY = ("ndims", "prob", "layers", "guide", "objective", "seed")
#: The columns of ``results.csv``.
COLUMNS = (
    *_IDENTITY,
    *("loss", "recon", "recon_per_dim", "kl1", "kl2", "entropy", "log_evidence"),
    *("kl_posterior", "mutual_information", "kl_aggregate", "optimum", "steps", "seconds"),
)
#: In a run's directory while it is trained.
_LOCK, _PROGRESS = ".lock", "progress.pt"
#: The packages, beside this one, whose versions a run's last digits may hang on.
_PACKAGES = ("pyro-ppl", "torch", "numpy", "scipy")
#: No figure of a run comes near.
_LARGEST = 1e300
#: No config, metrics or history of ours comes near; a file above is not read into memory.
_MAX_TEXT_BYTES = 64 * 2**20


def write_table(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as CSV; floats keep every digit."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue().encode())


def read_table(path: Path) -> list[dict[str, Any]]:
    """Read a CSV file's rows, numbers as numbers.

    Raises:
        InputError: If there is no such file, or it is no table.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(_read(path).decode()), strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is damaged ({error})") from None
    if any(None in row or None in row.values() for row in rows):
        raise InputError(f"{path} is damaged (a row has more or fewer values than the header)")
    return [{name: _number(value) for name, value in row.items()} for row in rows]


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def save_run(run: Run, path: str | Path) -> None:
    """Write ``config.json``, ``checkpoint.pt``, ``history.csv`` and, if judged, ``metrics.json``.

    Raises:
        InputError: If the directory cannot be written.
    """
    path = Path(path)
    _write_config(run.config, path)
    parameters = io.BytesIO()
    torch.save({"model": run.model.state_dict(), "guide": run.guide.state_dict()}, parameters)
    write_whole(path / "checkpoint.pt", parameters.getvalue())
    rows = [dict(zip(run.history, values, strict=True)) for values in zip(*run.history.values(), strict=True)]
    write_table(path / "history.csv", list(run.history), rows)
    if run.metrics:
        write_whole(path / "metrics.json", _json(run.metrics))


def _write_config(config: Config, path: Path) -> None:
    described = {
        "format": FORMAT,
        "version": version("pyro-onebit"),
        "versions": {name: version(name) for name in _PACKAGES} | {"python": platform.python_version()},
        **asdict(config),
        "recipe": asdict(config.recipe),
    }
    write_whole(path / "config.json", _json(described))


def is_finished(path: Path) -> bool:
    """Whether a directory holds a whole run: the metrics are written last."""
    return (path / "metrics.json").exists()


def is_begun(path: Path) -> bool:
    """Whether a run's training began here and has not ended, even if its process is gone."""
    return (path / _LOCK).exists()


def is_busy(path: Path) -> bool:
    """Whether another process is training a run here now."""
    return is_held(path / _LOCK)


def run_name(config: Config) -> str:
    """The directory of a run within a study: says what the run is, and sorts as a reader would."""
    usual = Config(guide=config.guide, layers=config.layers, objective=config.objective)
    unusual = "".join(
        f"-{value}" if isinstance(value, str) else f"-{name}{value:g}"
        for name in ("prob", "preset", "steps", "lr", "particles", "dtype", "device")
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
    with held(path / _LOCK):
        _claim(path, config)
        progress = Progress(path / _PROGRESS, config)
        if is_finished(path):
            run = load_run(path)
        else:
            try:
                run = fit(*build(config), config, quiet=quiet, progress=progress)
            except TrainingError as error:
                save_run(error.run, path)
                raise
            save_run(run, path)
        progress.clear()
    return run


def _claim(path: Path, config: Config) -> None:
    """Keep what is trained in its directory, or refuse a directory that holds another run."""
    try:
        there = _read_config(path / "config.json")
    except InputError:
        if is_finished(path):
            raise
        # There is none, or one of another version, whose unfinished training is no use to this one.
        _write_config(config, path)
        return
    if there != config:
        raise InputError(f"{path} holds another run ({differences(there, config)}); choose another directory")


def load_run(path: str | Path) -> Run:
    """Read a run that `save_run` wrote.

    Raises:
        InputError: If the directory holds no run, a damaged one, or one of another version.
    """
    path = Path(path)
    config = _read_config(path / "config.json")
    model, guide, data = build(config)
    _load_parameters(path / "checkpoint.pt", model, guide)
    metrics = read_metrics(path / "metrics.json", config) if is_finished(path) else {}
    rows = read_table(path / "history.csv")
    history = {name: [row[name] for row in rows] for name in (rows[0] if rows else ())}
    return Run(model, guide, data, config, history, float(metrics.get("seconds", 0.0)), metrics)


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()


def _read(path: Path) -> bytes:
    try:
        return read_whole(path, _MAX_TEXT_BYTES)
    except InputError as error:
        raise InputError(f"{error}; a run's directory is one that `onebit train` wrote") from None


def _read_json(path: Path) -> dict[str, Any]:
    text = _read(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: it is not JSON ({error})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} is damaged: it holds a {type(content).__name__}, not an object")
    return content


def read_metrics(path: Path, config: Config | None = None) -> dict[str, Any]:
    """Read a run's ``metrics.json``.

    Arguments:
        path: The file.
        config: The run's configuration, if the metrics must be seen to be its.

    Raises:
        InputError: If it cannot be read, is damaged, or is another run's.
    """
    metrics = _read_json(path)
    for column in COLUMNS:
        value = metrics.get(column)
        is_right = isinstance(value, str) if column in ("guide", "objective") else _is_number(value)
        if not is_right or (config is not None and column in _IDENTITY and value != getattr(config, column)):
            raise InputError(f"{path} is damaged, or not of this run: its {column} is {value!r}"[:300])
    return metrics


def _is_number(value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    # Of an integer too: one that a float cannot hold is none of ours.
    return is_number and -_LARGEST < value < _LARGEST


def read_versions(path: Path) -> dict[str, str]:
    """Of a run's ``config.json``: the versions of what trained it, by name.

    Raises:
        InputError: If it cannot be read, or is damaged.
    """
    content = _read_json(path)
    versions = content.get("versions", {})
    if not isinstance(versions, dict):
        raise InputError(f"{path} is damaged: its versions are {versions!r}"[:200])
    return {"pyro-onebit": str(content.get("version")), **{str(name): str(value) for name, value in versions.items()}}


def _read_config(path: Path) -> Config:
    content = _read_json(path)
    if content.get("format") != FORMAT:
        raise InputError(
            f"{path} has format {content.get('format')!r}, written by version {content.get('version')!r}; "
            f"version {version('pyro-onebit')} reads format {FORMAT}"
        )
    names = [f.name for f in fields(Config)]
    missing = [name for name in names if name not in content]
    if missing:
        raise InputError(f"{path} is damaged: it lacks {', '.join(missing)}")
    try:
        config = Config(**{name: content[name] for name in names})
    except TypeError as error:
        raise InputError(f"{path} is damaged: a value has the wrong type ({error})") from None
    if content.get("recipe") != asdict(config.recipe):
        raise InputError(
            f"{path} was trained by version {content.get('version')!r} with another {config.preset!r} recipe; "
            f"evaluate it with that version, or train it again"
        )
    return config


def _load_parameters(path: Path, model: nn.Module, guide: nn.Module) -> None:
    expected = sum(p.numel() * p.element_size() for module in (model, guide) for p in module.state_dict().values())
    # The archive's own overhead is a few hundred bytes a tensor.
    states = load_tensors(path, 2 * expected + 2**20)
    try:
        model.load_state_dict(states["model"])
        guide.load_state_dict(states["guide"])
    except Exception as error:  # whatever is there in place of the parameters
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"{path} is damaged, or not of this run: {reason[0][:120]}") from None
    if not all(torch.isfinite(p).all() for module in (model, guide) for p in module.state_dict().values()):
        raise InputError(f"{path} is damaged: a parameter is not finite")
