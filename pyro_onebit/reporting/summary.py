"""Runs summed up over seeds."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from pyro_onebit.studies import CELL, COLUMNS, with_derived


def summarise(table: pd.DataFrame, by: Sequence[str] = CELL) -> pd.DataFrame:
    """A row for each cell of a study's or a comparison's table, over its seeds.

    Arguments:
        table: The runs.
        by: Columns that are equal within a cell.

    Returns:
        `by`; ``seeds``, their number; and what each column says of itself (`Column.over_seeds`): ``worst``, ``median``
        and ``best``, the loss above the family's limit, nats, empty where that is not known; ``collapsed``, the share
        of runs whose latent does not hold half of the entropy though n > 1 makes it worth its cost; medians of others.
    """
    table = with_derived(table, (column for column in COLUMNS if column.over_seeds))
    summed = {
        name: (column.name, how)
        for column in COLUMNS
        if column.name in table
        for name, how in column.over_seeds.items()
        if name not in by
    }
    groups = table.groupby(list(by), sort=False, dropna=False)
    return groups.agg(seeds=("seed", "size"), **summed).reset_index()
