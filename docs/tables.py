"""Fill the tables of the README and of the docs from what was recorded, so that none is stale.

    python docs/tables.py

Between ``<!-- table: NAME -->`` and ``<!-- end -->`` in a page stands what `TABLES[NAME]` makes of what is recorded in
``analysis/recorded/``; between ``<!-- answer: NAME -->`` and that, what a script said.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from pyro_onebit.plots import LAYER_NAMES
from pyro_onebit.reporting import markdown_table, summary_columns
from pyro_onebit.studies import Column, check_table, shown_columns, with_derived

ROOT = Path(__file__).parents[1]
RECORDED = ROOT / "analysis" / "recorded"
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
#: What each guide is.
FAMILIES = {
    "gaussian": "a Gaussian",
    "mixture": "four Gaussians, with implicit reparameterisation gradients",
    "two_layer": "of the two-layer model, with z1 as an auxiliary variable",
    "flow": "a standard normal through a monotone spline that depends on x",
    "truncated": "a Gaussian cut off at a learned threshold: what an ideal posterior is",
    "oracle": "the exact posterior of the model as it is; nothing is learned",
    "prior": "p(z); nothing is learned",
}
CASES = {
    "two_layer": "q(z1|x) q(z2|z1)",
    "two_layer_skip": "q(z1|x) q(z2|z1,x)",
    "top_down": "q(z2|x) q(z1|z2,x)",
    "top_down_flow": "the same, q(z2|x) a flow",
    "mean_field": "q(z1|x) q(z2|x)",
    "learned_prior": "q(z1|x) Gaussian, under a prior that is learned",
}


def recorded(name: str) -> pd.DataFrame:
    """A recorded table."""
    return pd.read_csv(RECORDED / f"{name}.csv")


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """A table's rows; a bar in a word would end its cell."""
    rows = table.astype(object).to_dict("records")
    return [{str(k): v.replace("|", r"\|") if isinstance(v, str) else v for k, v in row.items()} for row in rows]


def markdown(table: pd.DataFrame, digits: str = ".4f") -> str:
    """A table whose columns are named as readers see them."""
    return markdown_table(rows_of(table), [Column(str(name), format=digits) for name in table])


def pivot(table: pd.DataFrame, index: str, values: str, words: dict[str, str]) -> pd.DataFrame:
    """A row for each kind, with what it is, and a column for each number of dimensions."""
    wide = table.pivot(index=index, columns="ndims", values=values)
    wide = wide.loc[[name for name in words if name in wide.index]]
    wide.columns = [f"n = {n}" for n in wide.columns]
    wide.insert(0, "what it is", [words[name] for name in wide.index])
    return wide.reset_index()


def study() -> str:
    """What `onebit study` prints."""
    table = with_derived(check_table(recorded("study/results"), "results"))
    columns = [column for column in shown_columns("results", table) if column.name not in ("seed", "seconds")]
    return markdown_table(table.astype(object).to_dict("records"), columns)


def phenomenon() -> str:
    """The same in short."""
    table = recorded("study/results")
    wide = table.pivot(index="ndims", columns="layers", values=["mutual_information", "loss"])
    names = {"mutual_information": "I(x; z)", "loss": "loss"}
    wide.columns = [f"{names[name]}, {LAYER_NAMES[count]}" for name, count in wide.columns]
    return markdown(wide.reset_index().rename(columns={"ndims": "n"}))


def reliability(name: str = "reliability") -> str:
    """A row for each cell."""
    table = recorded(name)
    ways = [name for name in ("preset", "start") if name in table]
    return markdown_table(rows_of(table), [*map(Column, ways), *summary_columns(table.drop(columns=ways))])


def ablation() -> str:
    """The worst seed's distance as a multiple of the default's."""
    table = recorded("ablation")
    wide = table.pivot(index="variant", columns=["layers", "ndims", "prob"], values="worst")
    wide = wide / wide.loc["default"]
    wide = wide.loc[wide.max(axis=1).sort_values(ascending=False).index]
    wide.columns = [
        f"{LAYER_NAMES[layers]}, n = {n}" + f", p = {prob:g}" * (prob != 0.5) for layers, n, prob in wide.columns
    ]
    return markdown(wide.reset_index(), ".3g")


def guides() -> str:
    """The worst seed's loss above the entropy."""
    return markdown(pivot(recorded("guides/compare_guides"), "guide", "worst_gap", FAMILIES))


def factorisations() -> str:
    """The same of two-layer guides."""
    table = recorded("factorisations/factorisations")
    return markdown(pivot(table, "case", "worst", CASES))


def objectives() -> str:
    """At the most particles that were tried."""
    table = recorded("guides/compare_objectives")
    table = table[table["K"] == table["K"].max()]
    names = {"worst_loss": "loss, worst seed", "minus_log_evidence": "−log p(x)", "minus_bound": "−bound"}
    return markdown(table[["objective", *names]].rename(columns=names))


def bits_back() -> str:
    """Where the bits go."""
    table = recorded("bits_back/bits_back")
    measured = [f"{row.net:.4f} ± {row.standard_error:.4f}" for row in table.itertuples()]
    names = {
        "guide": "guide",
        "ndims": "n",
        "loss": "loss ÷ ln 2",
        "discretisation": "grids add",
        "leak": "2⁻²⁴ adds",
        "expected": "expected",
        "measured": "measured",
        "naive": "without dither",
    }
    return markdown(table.assign(measured=measured)[list(names)].rename(columns=names))


def benchmark() -> str:
    """Whole studies."""
    table = recorded("benchmark/study").dropna(axis=1, how="all")
    own = float(table.loc[table["contender"] == "onebit study", "wall_s"].iloc[0])
    table = table[["contender", "processes", "threads", "wall_s"]].assign(ratio=table["wall_s"] / own)
    return markdown(table.rename(columns={"wall_s": "seconds", "ratio": "÷ onebit study"}), ".1f")


def steps() -> str:
    """A step beside the same step by hand."""
    names = {"package_ms": "ms a step", "by_hand_ms": "by hand in torch", "ratio": "ratio"}
    table = recorded("benchmark/step")[["layers", "ndims", *names]]
    return markdown(table.rename(columns=names), ".2f")


def outside() -> str:
    """What was tried from outside."""
    return markdown(recorded("outside"))


def versions() -> str:
    """What the tests say with which versions."""
    table = pd.read_csv(RECORDED / "versions.csv", dtype=str)
    for name in ("torch", "numpy", "pyro-ppl", "arviz"):
        table[name] = table["versions"].str.extract(rf"{name} (\S+)")
    return markdown(table[["date", "python", "resolution", "torch", "numpy", "pyro-ppl", "arviz", "result"]])


def survival() -> str:
    """How many disturbed studies ended as undisturbed ones."""
    table = recorded("survival").groupby("section", sort=False)["same"].agg(tried="size", same="sum").reset_index()
    return markdown(table.rename(columns={"same": "the same results in the end"}))


def any_program() -> str:
    """How many programs were judged rightly, refused, or wrongly."""
    verdicts = recorded("any_program").groupby("case")["verdict"].agg(set)
    wrong = int(sum("WRONG" in own for own in verdicts))
    right = int(sum(own == {"right"} for own in verdicts))
    counts = {"programs": len(verdicts), "right": right, "refused": len(verdicts) - right - wrong, "wrong": wrong}
    return markdown(pd.DataFrame([counts]))


def gray_code() -> str:
    """A row for each order that runs ended in; orders of sixteen codewords, of which no two runs share one, as one."""
    table = recorded("few_bits/gray_code")
    gray = table["more bits than Gray"] == 0
    named = table["order"].where(table["order"].str.split().str.len() <= 8, "")
    table = table.assign(gray=gray, named=named)
    groups = table.groupby(["repeats", "start", "gray", "named"], sort=False)
    columns = {
        "orders": ("order", "nunique"),
        "seeds": ("runs", "sum"),
        **{f"{name} {end}": (name, end) for name in ("order's limit", "order costs") for end in ("min", "max")},
        "worst": ("worst", "max"),
    }
    rows = []
    for row in groups.agg(**columns).reset_index().to_dict("records"):
        names = row["named"] or ("the Gray code" if row["gray"] else f"{row['orders']} others")
        cells = {name: row[name] for name in ("repeats", "start")} | {"order along z": names}
        cells |= {"Gray": bool(row["gray"]), "seeds": row["seeds"]}
        for name in ("order's limit", "order costs"):
            ends = dict.fromkeys(f"{row[f'{name} {end}']:.5f}" for end in ("min", "max"))
            cells[name] = " to ".join(ends)
        rows.append(cells | {"worst run": row["worst"]})
    return markdown_table(rows, [Column(name, format=".1e") for name in rows[0]])


def which_bits() -> str:
    """What the best Gaussian holds of a bit, and what runs do, by its repeats and by its company."""
    table = recorded("few_bits/which_bits")
    learned = [
        f" ({low:.3f} to {high:.3f})" if low == low else ""
        for low, high in zip(table["least"], table["most"], strict=True)
    ]
    cells = table["held"].map("{:z.3f}".format) + learned
    wide = table.assign(cells=cells).pivot(index="company", columns="repeats", values="cells")
    wide = wide.loc[list(dict.fromkeys(table["company"]))]
    wide.columns = [f"n = {repeats}" for repeats in wide.columns]
    return markdown(wide.reset_index().rename(columns={"company": "beside bits of"}))


def amortisation() -> str:
    """A row for each value of what is varied."""
    return markdown(recorded("few_bits/amortisation"), ".1e")


def two_layers_of_bits() -> str:
    """`reliability` of several bits."""
    return reliability("few_bits/two_layers")


TABLES: dict[str, Callable[[], str]] = {
    made.__name__: made
    for made in (
        *(study, phenomenon, reliability, ablation, guides, factorisations, objectives),
        *(bits_back, benchmark, steps, outside, versions, survival, any_program),
        *(gray_code, which_bits, amortisation, two_layers_of_bits),
    )
}
_BLOCK = re.compile(r"(<!-- (table|answer): (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def answer(name: str) -> str:
    """What a script said when its figure was drawn (`figures.py`)."""
    text = (RECORDED / "answers" / f"{name}.txt").read_text(encoding="utf-8")
    return "\n".join(f"> {line.strip()}  " for line in text.splitlines()).rstrip()


def filled(page: str) -> str:
    """A page with its tables and answers as they are now."""

    def block(found: re.Match[str]) -> str:
        start, kind, name, end = found.groups()
        return f"{start}{TABLES[name]() if kind == 'table' else answer(name)}\n{end}"

    return _BLOCK.sub(block, page)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
