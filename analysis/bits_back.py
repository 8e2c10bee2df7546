"""How many bits does a trained VAE really spend on a bit, and where do they go?

    python analysis/bits_back.py
    python analysis/bits_back.py --ndims 100 --guides gaussian flow --samples 20000
    python analysis/bits_back.py --run results/runs/layers2-ndims001000-two_layer-stl-seed0

A random stream goes through each run's codec and back: the rate that is measured beside the one computed by
summation and beside the loss; with and without dither; the rate against training time, against the bins of the top
latent, and the length of the stream against the number of samples. Writes ``bits_back.csv``, ``bins.csv``,
``training.csv`` and ``bits_back.png``.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from common import parser_of_looks, spaced, tell, write
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from pyro_onebit import GUIDES, Config, Run, build, fit, load_run
from pyro_onebit.coding import Codec
from pyro_onebit.files import write_table
from pyro_onebit.plots import DARK, GREY, LIGHT, PALETTE

BINS = [2**b for b in range(4, 15, 2)]
#: Looks at a training, about evenly spaced in the logarithm of its steps.
LOOKS = 16


def train(config: Config) -> tuple[Run, list[dict[str, Any]]]:
    """A run, and the rate of its codec along the way."""
    model, guide, data = build(config)
    steps = {count - 1 for count in spaced(config.recipe.steps, LOOKS)}
    seen: list[tuple[int, float, Any]] = []
    spent, last = 0.0, time.perf_counter()

    def look(step: int) -> None:
        nonlocal spent, last
        spent += time.perf_counter() - last
        if step in steps:
            seen.append((step, spent, (copy.deepcopy(model), copy.deepcopy(guide))))
        last = time.perf_counter()

    run = fit(model, guide, data, config, on_step=look, quiet=False)
    rows = [
        {**_names(run), "step": step, "seconds": seconds, "rate": Codec(*programs, data).rate.mean}
        for step, seconds, programs in seen
    ]
    return run, rows


def _names(run: Run) -> dict[str, Any]:
    return {"ndims": run.config.ndims, "guide": run.config.guide, "prob": run.config.prob}


def measure(run: Run, codec: Codec, samples: np.ndarray) -> dict[str, Any]:
    """A stream there and back: what it takes, and what it should."""
    ones = float(samples.mean())
    tell(f"{run.config.guide}, n = {run.config.ndims}: a stream of {len(samples)} samples, there and back")
    naive = Codec(run.model, run.guide, run.data, seed=codec.seed, dither=False)
    rate = codec.rate
    net, seconds = _net(codec, samples)
    return {
        **_names(run),
        "entropy": run.data.entropy / math.log(2.0),
        "loss": rate.neg_elbo,
        "discretisation": rate.discretisation,
        "leak": rate.leak,
        "expected": rate.mean,
        "of_stream": rate.of([1.0 - ones, ones]),
        "net": net,
        "standard_error": rate.standard_error(len(samples), [1.0 - ones, ones]),
        "naive": _net(naive, samples)[0],
        "initial_bits": codec.initial_bits,
        "samples": len(samples),
        "encoded_per_s": len(samples) / seconds[0],
        "decoded_per_s": len(samples) / seconds[1],
    }


def _net(codec: Codec, samples: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Bits per sample without the initial ones, and the seconds of encoding and decoding."""
    codec.encode(samples[:1000])  # fills the tables that are made when they are first asked for
    start = time.perf_counter()
    words = codec.encode(samples)
    between = time.perf_counter()
    restored = codec.decode(words, len(samples))
    end = time.perf_counter()
    if not np.array_equal(restored, samples):
        raise RuntimeError("what was decoded is not what was encoded")
    return (codec.bits(words) - codec.initial_bits) / len(samples), (between - start, end - between)


def lengths(codec: Codec, samples: np.ndarray) -> tuple[list[int], list[int]]:
    """Bits of streams of more and more samples, the initial bits included."""
    counts = spaced(min(10_000, len(samples)), 13)
    return counts, [codec.bits(codec.encode(samples[:count])) for count in counts]


def answer(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    for row in rows:
        off = abs(row["net"] - row["of_stream"]) / max(row["standard_error"], 1e-12)
        yield (
            f"{row['guide']}, n = {row['ndims']}: {row['net']:.4f} ± {row['standard_error']:.4f} bits a sample, where "
            f"summation says {row['of_stream']:.4f} ({off:.1f} standard errors off) and the loss {row['loss']:.4f}; "
            f"the source's entropy is {row['entropy']:.4f}. Of the difference to the loss the grids make "
            f"{row['discretisation']:+.4f}, whole multiples of 2^-24 {row['leak']:+.4f}. Without dither: "
            f"{row['naive']:.4f}."
        )


def draw(
    rows: Sequence[dict[str, Any]],
    training: Sequence[dict[str, Any]],
    bins: Sequence[dict[str, Any]],
    streams: Sequence[tuple[dict[str, Any], list[int], list[int]]],
) -> Figure:
    """The rate against training time and bins, the stream's length, and what dither does."""
    figure = Figure(figsize=(9.0, 7.6), layout="constrained")
    (over_time, over_bins), (length, dither) = figure.subplots(2, 2)
    guides = list(dict.fromkeys(row["guide"] for row in rows))
    colours = {guide: PALETTE[i % len(PALETTE)] for i, guide in enumerate(guides)}
    markers = dict(zip(guides, "osD^v" * len(guides), strict=False))
    sizes = sorted({row["ndims"] for row in rows})
    styles = dict(zip(sizes, ("-", "--", ":", "-.") * len(sizes), strict=False))
    entropy = rows[0]["entropy"]
    for row, counts, totals in streams:
        ndims, guide = row["ndims"], row["guide"]
        look: dict[str, Any] = {"color": colours[guide], "marker": markers[guide], "ms": 3, "ls": styles[ndims]}
        for axes, x, table in ((over_time, "seconds", training), (over_bins, "bins", bins)):
            own = [r for r in table if (r["ndims"], r["guide"]) == (ndims, guide)]
            label = f"{guide}, $n = {ndims}$"
            axes.plot([r[x] for r in own], [r["rate"] - entropy for r in own], **look, label=label)
        length.plot(counts, np.array(totals) / counts, **look)
    initial = np.geomspace(1, max(counts[-1] for _, counts, _ in streams), 50)
    length.plot(initial, rows[0]["initial_bits"] / initial + entropy, color=GREY, lw=1, label="initial bits + entropy")
    length.axhline(entropy, color="0.3", lw=1, ls=":", label="entropy")
    at = np.arange(len(rows))
    dither.plot(at, [row["loss"] for row in rows], "_", color=DARK, ms=20, label="loss ÷ ln 2")
    errors = [row["standard_error"] for row in rows]
    dither.errorbar(
        at - 0.1, [row["net"] for row in rows], errors, fmt="o", color=PALETTE[0], capsize=3, label="dithered"
    )
    dither.plot(at + 0.1, [row["naive"] for row in rows], "s", color=PALETTE[1], mfc="none", label="naive")
    dither.set_xticks(at, [f"{row['guide']}\n$n = {row['ndims']}$" for row in rows], fontsize=7)
    dither.axhline(entropy, color="0.3", lw=1, ls=":")
    if training:
        over_time.set(xscale="log", yscale="log", xlabel="seconds of training", ylabel="expected rate − entropy (bits)")
        over_time.xaxis.set_major_locator(LogLocator())
        over_time.xaxis.set_major_formatter("{x:g}")
    else:  # how runs that were trained before came there is not known
        over_time.set_axis_off()
    over_bins.set(xscale="log", yscale="log", xlabel="bins of the top latent", ylabel="expected rate − entropy (bits)")
    over_bins.set_xticks(BINS, [str(b) for b in BINS])
    for axes in (over_bins, over_time):
        axes.xaxis.set_minor_locator(NullLocator())
    length.set(xscale="log", yscale="log", xlabel="samples", ylabel="bits a sample, initial ones included")
    dither.set(ylabel="net bits a sample")
    for axes in (over_time, over_bins, length, dither):
        axes.grid(color=LIGHT)
        axes.set_axisbelow(True)
    length.legend(frameon=False)
    dither.legend(frameon=False)
    handles, labels = over_bins.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    return figure


def main(args: argparse.Namespace) -> None:
    runs, training = [load_run(path) for path in args.run], []
    if not args.run:
        # What a process does for the first time takes seconds that are no run's own.
        warm = Config(ndims=2, steps=1)
        fit(*build(warm), warm)
    for ndims in args.ndims if not args.run else []:
        for guide in args.guides:
            config = Config(
                ndims=ndims, layers=GUIDES[guide].layers, guide=guide, seed=args.seed, prob=args.prob, steps=args.steps
            )
            tell(f"{guide}, n = {ndims}: training")
            run, seen = train(config)
            runs.append(run)
            training += seen
    tell("rates against bins")
    bins = [
        {**_names(run), "bins": count, "rate": Codec(run.model, run.guide, run.data, bins=count).rate.mean}
        for run in runs
        for count in BINS
    ]
    rows, streams = [], []
    for run in runs:
        codec = Codec(run.model, run.guide, run.data, seed=args.seed)
        samples = (np.random.default_rng(args.seed).random(args.samples) < run.data.prob).astype(np.uint8)
        rows.append(measure(run, codec, samples))
        streams.append((rows[-1], *lengths(codec, samples)))
    args.out.mkdir(parents=True, exist_ok=True)
    write_table(args.out / "bins.csv", pd.DataFrame(bins))
    write_table(args.out / "training.csv", pd.DataFrame(training))
    write(args, "bits_back", rows, draw(rows, training, bins, streams), answer(rows))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = parser_of_looks(__doc__, "bits_back", ndims=(5, 1000))
    parser.add_argument("--guides", nargs="+", default=["gaussian", "two_layer", "truncated"])
    parser.add_argument("--samples", type=int, default=100_000, help="length of the stream")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(parse())
