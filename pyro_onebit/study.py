"""A study: a grid of runs, spread over processes, and the table they fill."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock
from joblib import Parallel, delayed, parallel_config
from joblib.externals.loky.process_executor import TerminatedWorkerError
from torch import nn
from tqdm import tqdm

from pyro_onebit.config import Config
from pyro_onebit.data import InputError
from pyro_onebit.exact import Truth
from pyro_onebit.files import check_writable
from pyro_onebit.guides import GUIDES
from pyro_onebit.matching import GuideError
from pyro_onebit.progress import Progress
from pyro_onebit.runs import COLUMNS, is_finished, load_run, save_run, write_table
from pyro_onebit.training import Run, TrainingError, build, fit

__all__ = ["ORIGINAL", "Study", "missing", "run_name", "run_study", "spread", "train", "write_failures"]

#: The original experiment's published results: (layers, ndims) to (loss, recon per dimension), nats,
#: Monte Carlo estimates over 10,000 samples of one trained model each (github.com/RuiShu/one-bit-vae).
ORIGINAL = {
    (1, 1): (0.693146, 0.692536),
    (1, 5): (1.066330, 0.0278800),
    (1, 10): (1.140738, 0.00956119),
    (1, 100): (1.426243, 0.00147573),
    (1, 1000): (1.485946, 4.28207e-05),
    (2, 1): (0.693192, 0.693038),
    (2, 5): (0.721471, 0.00195538),
    (2, 10): (0.723806, 9.19815e-05),
    (2, 100): (0.722139, 2.29151e-05),
    (2, 1000): (0.750554, 2.22730e-06),
}


@dataclass(frozen=True)
class Study:
    """What became of a grid of runs.

    Arguments:
        rows: One row of ``results.csv`` a run that succeeded, in the grid's order.
        failures: Name and reason of each run that did not.
        truths: Name and densities of the first run that succeeded in each cell of layers and ndims.
    """

    rows: list[dict[str, Any]]
    failures: dict[str, str]
    truths: dict[str, Truth]


def run_name(config: Config) -> str:
    """The directory of a run within a study: says what the run is, and sorts as a reader would."""
    usual = Config(guide=config.guide, layers=config.layers, objective=config.objective)
    unusual = "".join(
        f"-{value}" if isinstance(value, str) else f"-{name}{value:g}"
        for name in ("prob", "preset", "steps", "lr", "particles", "dtype", "device")
        if (value := getattr(config, name)) != getattr(usual, name)
    )
    return f"layers{config.layers}-ndims{config.ndims:06d}{unusual}-{config.guide}-{config.objective}-seed{config.seed}"


def missing(configs: Iterable[Config], out: Path) -> list[Config]:
    """The configurations whose runs are not finished in a study's directory."""
    return [config for config in configs if not is_finished(out / "runs" / run_name(config))]


def run_study(
    configs: Iterable[Config], out: Path, jobs: int, *, quiet: bool = True, cluster: str | None = None
) -> Study:
    """Train every configuration whose run is not there yet, and write the table ``out/results.csv``.

    Each run is kept under ``out/runs`` as soon as it is finished, and its state while it is trained; so the same call
    goes on where an earlier one was stopped. Runs that failed are tried again. Their reasons are in
    ``out/failures.csv``.

    Arguments:
        configs: The grid.
        out: The study's directory.
        jobs: Processes, each with one thread; a run's result does not depend on it.
        quiet: Show no progress bar.
        cluster: Address of a Dask scheduler whose workers see the same files; then `jobs` is of no account.

    Raises:
        InputError: If `jobs` is below 1, `out` cannot be written, or holds another configuration's run.
    """
    configs = list(configs)
    check_writable(out)
    results: dict[int, dict[str, Any] | str] = {}
    first: dict[tuple[int, int], tuple[int, Truth | None]] = {}
    try:
        for i, result in spread(_train_one, configs, out, jobs, quiet=quiet, cluster=cluster):
            if isinstance(result, str):
                results[i] = result
                continue
            results[i], truth = result
            cell = (configs[i].layers, configs[i].ndims)
            # Of all others the densities go at once: a study may have thousands of runs.
            if i <= first.get(cell, (i, truth))[0]:
                first[cell] = (i, truth)
    finally:
        rows = [result for _, result in sorted(results.items()) if isinstance(result, dict)]
        failures = {i: result for i, result in sorted(results.items()) if isinstance(result, str)}
        if results:
            write_table(out / "results.csv", COLUMNS, rows)
            write_failures({configs[i]: reason for i, reason in failures.items()}, out)
    truths = {}
    for i, truth in sorted(first.values(), key=itemgetter(0)):
        name = run_name(configs[i])
        truths[name] = truth if truth is not None else load_run(out / "runs" / name).judge().truth
    return Study(rows, {run_name(configs[i]): reason for i, reason in failures.items()}, truths)


#: The columns of ``failures.csv``.
FAILURE_COLUMNS = ("ndims", "prob", "layers", "guide", "objective", "seed", "run", "reason")


def write_failures(failures: Mapping[Config, str], out: Path) -> None:
    """Write ``failures.csv``, a row a run that failed; if none did, there is no such file."""
    path = out / "failures.csv"
    if failures:
        rows = [{**asdict(config), "run": run_name(config), "reason": why} for config, why in failures.items()]
        write_table(path, FAILURE_COLUMNS, rows)
    else:
        path.unlink(missing_ok=True)


T = TypeVar("T")


def spread(
    work: Callable[[Config, Path], T],
    configs: Sequence[Config],
    out: Path,
    jobs: int,
    *,
    quiet: bool,
    cluster: str | None = None,
) -> Iterator[tuple[int, T | str]]:
    """Do something for each configuration and the directory of its run, in processes; as they end.

    A run whose process is killed is tried once more, alone, and then given up.

    Arguments:
        work: A function of a module, so that a process can find it.
        configs: The configurations.
        out: The study's directory.
        jobs: Processes, each with one thread.
        quiet: Show no progress bar.
        cluster: Address of a Dask scheduler, in place of `jobs`.

    Returns:
        Index and result of each, or why there is none.

    Raises:
        InputError: If `jobs` is below 1, there is no such scheduler, or `work` says so of a run.
    """
    if jobs < 1:
        raise InputError(f"jobs is {jobs}; it must be at least 1")
    # The longest runs first, so that no core is left with one of them at the end.
    waiting = sorted(range(len(configs)), key=lambda i: (-configs[i].layers, -configs[i].ndims, i))
    paths = [out / "runs" / run_name(config) for config in configs]

    def results(indices: Sequence[int], parallel: Parallel) -> Iterator[tuple[int, T | str]]:
        return parallel(delayed(_in_worker)(GUIDES, work, i, configs[i], paths[i]) for i in indices)

    with ExitStack() as stack:
        client = None if cluster is None else stack.enter_context(_client(cluster))
        bar = stack.enter_context(tqdm(total=len(configs), disable=True if quiet else None, unit="run"))
        while waiting:
            try:
                for i, result in results(tuple(waiting), _parallel(min(jobs, len(waiting)), client)):
                    waiting.remove(i)
                    bar.update()
                    yield i, result
            except TerminatedWorkerError:
                for i in [i for i in waiting if (paths[i] / _LOCK).exists()]:
                    waiting.remove(i)
                    try:
                        # Two processes, for with one it would be this one.
                        [(_, result)] = results([i], _parallel(2, client))
                    except TerminatedWorkerError:
                        result = "its process was killed, twice; it may have taken too much memory"
                    bar.update()
                    yield i, result


def _parallel(processes: int, client: Any) -> Parallel:
    if client is None:
        return Parallel(n_jobs=processes, return_as="generator_unordered")
    with parallel_config(backend="dask", client=client):
        return Parallel(n_jobs=-1, return_as="generator_unordered")


def _client(address: str) -> Any:
    try:
        from distributed import Client
    except ImportError:
        raise InputError("a cluster needs Dask: pip install 'pyro-onebit[cluster]'") from None
    try:
        return Client(address, timeout="10s")
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"no Dask scheduler answers at {address!r} ({type(error).__name__}); start one first"
        ) from None


def _in_worker(
    guides: dict[str, type[nn.Module]], work: Callable[[Config, Path], T], index: int, config: Config, path: Path
) -> tuple[int, T | str]:
    # Guides that a script has registered are not known in another process.
    for name, guide in guides.items():
        GUIDES.setdefault(name, guide)
    try:
        return index, work(config, path)
    except (TrainingError, ArithmeticError, GuideError) as error:
        return index, str(error)
    except InputError:
        raise
    except Exception as error:  # a guide is a user's program: whatever it does, the other runs go on
        return index, f"{type(error).__name__}: {' '.join(str(error).split())}"


def _train_one(config: Config, path: Path) -> tuple[dict[str, Any], Truth | None]:
    """One run in a worker: its row, and its densities if they are at hand."""
    run = train(config, path)
    return run.metrics, run.truth


#: In a run's directory while it is trained.
_LOCK, _PROGRESS = ".lock", "progress.pt"


def train(config: Config, path: Path) -> Run:
    """A configuration's run: the one that is there, or else trained, from where an earlier training was left.

    Two processes that want the same run at the same time train it once.

    Raises:
        TrainingError: If training fails; the last parameters before it are kept.
        InputError: If the directory holds another run, or cannot be written.
    """
    check_writable(path)
    with FileLock(path / _LOCK):
        if is_finished(path):
            run = load_run(path)
            if run.config != config:
                raise InputError(f"{path} holds a run of {run.config}, not of {config}; give another directory")
        else:
            progress = Progress(path / _PROGRESS, config)
            try:
                run = fit(*build(config), config, progress=progress)
            except TrainingError as error:
                save_run(error.run, path)
                raise
            save_run(run, path)
        (path / _PROGRESS).unlink(missing_ok=True)
    (path / _LOCK).unlink(missing_ok=True)
    return run
