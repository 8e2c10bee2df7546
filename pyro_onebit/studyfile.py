"""A study as a file: the grid that was asked for, to be shared, repeated, and held to."""

from __future__ import annotations

import itertools
import json
import math
import tomllib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

from pyro_onebit.config import Config, Device, Dtype, Preset, differences, layers_of
from pyro_onebit.data import InputError
from pyro_onebit.files import held, read_whole, write_whole

__all__ = ["STUDY_FILE", "StudyGrid", "claim", "read_study"]

#: The file's name in a study's directory.
STUDY_FILE = "study.toml"
_MAX_BYTES = 2**20
_MAX_RUNS = 100_000
#: What all of a study's runs have in common.
_COMMON = ("prob", "preset", "steps", "lr", "particles", "dtype", "device")


@dataclass(frozen=True)
class StudyGrid:
    """What a study trains: every combination of ndims, layers, guides, objectives and seeds.

    Arguments:
        ndims: Dimensions of x.
        layers: Latent layers.
        guides: Registered guides, each for its number of layers; none: each number of layers' own.
        objectives: Training objectives; none: each recipe's own.
        seeds: Seeds.
        prob: Probability of codeword 1.
        preset: How to train: the default recipe, the same with more steps, or the original's.
        steps: Steps, if not the recipe's.
        lr: First learning rate, if not the recipe's.
        particles: Samples of the latents a row, if not the recipe's.
        dtype: Precision of the training; judging is in float64 always.
        device: Where to train.
    """

    ndims: tuple[int, ...] = (1, 5, 10, 100, 1000)
    layers: tuple[int, ...] = (1, 2)
    guides: tuple[str, ...] = ()
    objectives: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    prob: float = 0.5
    preset: Preset = "default"
    steps: int | None = None
    lr: float | None = None
    particles: int | None = None
    dtype: Dtype = "float32"
    device: Device = "cpu"

    def configs(self) -> list[Config]:
        """The configurations, every combination once.

        Raises:
            InputError: If a value is out of range, a name is unknown, a guide's number of layers is not asked for, or
                there are more than 100,000.
        """
        sizes = map(len, (self.ndims, self.layers, self.guides or "-", self.objectives or "-", self.seeds))
        if (count := math.prod(sizes)) > _MAX_RUNS:
            raise InputError(f"the grid has {count} combinations; a study has at most {_MAX_RUNS}: make it several")
        common: dict[str, Any] = {name: getattr(self, name) for name in _COMMON}
        cells = itertools.product(self._guides(), self.objectives or (None,), self.ndims, self.seeds)
        configs = [
            Config(ndims=ndims, layers=layers, guide=guide, objective=objective, seed=seed, **common)
            for (layers, guide), objective, ndims, seed in cells
        ]
        return list(dict.fromkeys(configs))

    def _guides(self) -> Iterator[tuple[int, str | None]]:
        for guide in self.guides:
            if layers_of(guide) not in self.layers:
                raise InputError(f"guide {guide!r} has {layers_of(guide)} layer(s), and layers is {list(self.layers)}")
        for layers in self.layers:
            own = [guide for guide in self.guides if layers_of(guide) == layers]
            yield from ((layers, guide) for guide in (own if self.guides else [None]))

    def to_toml(self) -> str:
        """The file's text; what is not set is left out."""
        # Numbers, strings and lists of them are written in TOML as in JSON.
        entries = {name: value for name, value in asdict(self).items() if value not in (None, ())}
        return "".join(f"{name} = {json.dumps(value)}\n" for name, value in entries.items())


def read_study(path: Path) -> StudyGrid:
    """Read a grid from a TOML file; what it does not say is the default.

    Guides may be another script's: `StudyGrid.configs` says if one is not known here.

    Raises:
        InputError: If it cannot be read, is no TOML, or has a name, or a kind of value, that a study does not.
    """
    content = read_whole(path, _MAX_BYTES)
    try:
        entries = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is no TOML file: {error}") from None
    types = get_type_hints(StudyGrid)
    known = [field.name for field in fields(StudyGrid)]
    for name, value in entries.items():
        if name not in known:
            raise InputError(f"{path} has {name!r}; a study has {', '.join(known)}")
        kinds: Any = {
            "prob": (int, float),
            "lr": (int, float),
            **dict.fromkeys(("preset", "dtype", "device"), str),
        }.get(name, int)
        is_list = str(types[name]).startswith("tuple")
        kinds = str if name in ("guides", "objectives") else kinds
        parts = value if is_list and isinstance(value, list) else [value]
        if is_list != isinstance(value, list) or not all(_is(part, kinds) for part in parts):
            what = "a list of " if is_list else ""
            kind = {str: "strings", int: "whole numbers"}.get(kinds, "numbers")
            raise InputError(f"{path} has {name} = {value!r}; it must be {what}{kind if is_list else kind[:-1]}")
    values: Any = {name: tuple(value) if isinstance(value, list) else value for name, value in entries.items()}
    return StudyGrid(**values)


def _is(value: Any, kinds: Any) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool)


def claim(out: Path, grid: StudyGrid) -> None:
    """Keep a study's grid in its directory, or refuse a directory that holds another study.

    Raises:
        InputError: If it does; with the differences.
    """
    path = out / STUDY_FILE
    # Of two commands that begin at the same time, the second finds the first one's.
    with held(out / ".study.lock"):
        if not path.exists():
            write_whole(path, grid.to_toml().encode())
        elif (there := read_study(path)) != grid:
            raise InputError(
                f"{out} holds another study ({differences(there, grid)}); choose another directory with --out"
            )
