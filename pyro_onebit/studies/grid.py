"""A study as a file: the grid that was asked for, to be shared, repeated, and held to; and where its runs are."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from pyro_onebit.brought import ByHand
from pyro_onebit.errors import InputError
from pyro_onebit.files import lock, ordered_fields, read_whole, restored, write_whole
from pyro_onebit.registry import GUIDES, MODELS, Registry, imported_sources
from pyro_onebit.settings import GridSettings, Settings
from pyro_onebit.training import AnyConfig, Config, differences

#: The file's name in a study's directory.
STUDY_FILE = "study.toml"
_MAX_BYTES = 2**20
_MAX_RUNS = 100_000
#: What is left out of a directory's name.
_UNFIT = re.compile(r"[^\w.=-]+")


@dataclass(frozen=True)
class StudyGrid(GridSettings):
    """What a study trains: every combination of ndims, layers, models, guides, objectives and seeds.

    Arguments: as for `GridSettings`.
    """

    def configs(self) -> list[Config]:
        """The configurations, every combination once.

        Raises:
            InputError: If a value is out of range, a list is empty, a name is unknown, a model's or a guide's number of
                layers is not asked for, or there are more than 100,000.
        """
        for name in ("ndims", "layers", "seeds"):
            if not getattr(self, name):
                raise InputError(f"{name} is empty; a study needs at least one")
        if self.repeats and self.ndims != StudyGrid.ndims:
            raise InputError(f"repeats is given, and with it ndims {sum(self.repeats)}; leave ndims out")
        all_ndims = (sum(self.repeats),) if self.repeats else self.ndims
        axes = (all_ndims, self.layers, self.models, self.guides, self.objectives, self.seeds)
        if (count := math.prod(max(1, len(axis)) for axis in axes)) > _MAX_RUNS:
            raise InputError(f"the grid has {count} combinations; a study has at most {_MAX_RUNS}: make it several")
        common: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(Settings)}
        models, guides = self._by_layers(MODELS, self.models), self._by_layers(GUIDES, self.guides)
        objectives: tuple[str | None, ...] = self.objectives or (None,)
        configs = [
            Config(ndims, layers, model, guide, objective, seed, **common)
            for layers in self.layers
            for model, guide in itertools.product(models[layers], guides[layers])
            for objective, ndims, seed in itertools.product(objectives, all_ndims, self.seeds)
        ]
        return list(dict.fromkeys(configs))

    def _by_layers(self, registry: Registry[Any], names: Sequence[str]) -> dict[int, list[str | None]]:
        """Of the names those that belong to each number of layers; if there are none, that number's own."""
        for name in names:
            if (layers := registry.find(name).layers) not in self.layers:
                raise InputError(f"{registry.kind} {name!r} has {layers} layer(s), and layers is {list(self.layers)}")
        return {
            layers: [name for name in names if registry[name].layers == layers] if names else [None]
            for layers in self.layers
        }

    def to_toml(self) -> str:
        """The file's text; what is not set is left out."""
        # Numbers, strings and lists of them are written in TOML as in JSON.
        entries = {f.name: value for f in ordered_fields(self) if (value := getattr(self, f.name)) not in (None, ())}
        return "".join(f"{name} = {json.dumps(value)}\n" for name, value in entries.items())


def read_study(path: str | Path) -> StudyGrid:
    """Read a grid from a TOML file; what it does not say is the default.

    Guides may be another script's: `StudyGrid.configs` says if one is not known here.

    Raises:
        InputError: If it cannot be read, is no TOML, or has a name, or a kind of value, that a study does not.
    """
    path = Path(path)
    content = read_whole(path, _MAX_BYTES)
    try:
        entries = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no TOML file: {error}") from None
    try:
        grid = restored(StudyGrid, entries, "a study")
    except InputError as error:
        raise InputError(f"{path} is no study: {error}") from None
    return replace(grid, imports=tuple(_from(path.parent, source) for source in grid.imports))


def _from(directory: Path, source: str) -> str:
    """A source that a file in a directory names, as it is named here."""
    return str(directory / source) if source.endswith(".py") else source


def _for(directory: Path, source: str) -> str:
    """A source as a file in a directory names it, so that the two can be moved together."""
    return os.path.relpath(source, directory.resolve()) if source.endswith(".py") else source


def acquire(out: Path, grid: StudyGrid) -> None:
    """Keep a study's grid in its directory, or refuse a directory that holds another study.

    Raises:
        InputError: If it does; with the differences.
    """
    path = out / STUDY_FILE
    # Of two commands that begin at the same time, the second finds the first one's.
    with lock(out / ".study.lock"):
        if not path.exists():
            imports = tuple(_for(out, source) for source in imported_sources())
            write_whole(path, replace(grid, imports=imports).to_toml().encode())
        elif (there := read_study(path)) != grid:
            raise InputError(
                f"{out} holds another study ({differences(there, grid)}); choose another directory with --out"
            )


def run_name(config: AnyConfig) -> str:
    """The directory of a run within a study: says what the run is, and sorts as a reader would."""
    if isinstance(config, ByHand):
        known = "".join(f"-{value}" for value in (config.model, config.guide, config.objective) if value)
        seed = "" if config.seed is None else f"-seed{config.seed}"
        bits = f"-repeats{_in_name(config.repeats)}" if config.repeats else ""
        return f"layers{config.layers}-ndims{config.ndims:06d}{bits}-prob{config.prob:g}-by_hand{known}{seed}"
    usual = Config(guide=config.guide, layers=config.layers, objective=config.objective)
    unusual = "".join(
        f"-{_UNFIT.sub('_', value)}" if isinstance(value, str) else f"-{name}{_in_name(value)}"
        for name in ("prob", "model", *(f.name for f in fields(Settings) if f.name != "prob"))
        if (value := getattr(config, name)) != getattr(usual, name)
    )
    return f"layers{config.layers}-ndims{config.ndims:06d}{unusual}-{config.guide}-{config.objective}-seed{config.seed}"


def _in_name(value: Any) -> str:
    return "_".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}"


def run_path(out: str | Path, config: AnyConfig) -> Path:
    """The directory of a run of a study that is in `out`."""
    return Path(out) / "runs" / run_name(config)
