"""Studies that survive: stopped anywhere, they go on to the very same result."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor
from tqdm import tqdm

from pyro_onebit import Config, InputError, build, fit, register_guide
from pyro_onebit.cli import main
from pyro_onebit.errors import WriteError
from pyro_onebit.files import lock, read_table
from pyro_onebit.guides import GaussianGuide
from pyro_onebit.studies import (
    StateFile,
    StudyGrid,
    acquire,
    check_table,
    is_busy,
    load_run,
    read_study,
    records,
    run_all,
    run_name,
    run_path,
    run_study,
    train,
)
from pyro_onebit.studies.executors import _Progress

SMALL = ["--ndims", "3", "--layers", "1", "--steps", "20", "--quiet"]


class StoppedError(Exception):
    pass


def stop_after(steps: int):
    def on_step(step: int) -> None:
        nonlocal steps
        steps -= 1
        if steps < 0:
            raise StoppedError

    return on_step


@pytest.fixture
def _every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state is kept after each."""
    monkeypatch.setattr("pyro_onebit.studies.checkpoint.INTERVAL", 0.0)


def stopped(config: Config, path: Path, steps: int) -> None:
    """A training that is stopped after some steps, and keeps its state."""
    with pytest.raises(StoppedError):
        fit(*build(config), config, on_step=stop_after(steps), checkpoint=StateFile(path, config))


def without_seconds(rows: list[dict]) -> list[dict]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


@pytest.mark.parametrize(
    ("config", "stops"),
    [
        (Config(ndims=5, steps=40), (0, 1, 20)),
        (Config(ndims=5, layers=2, steps=40), (3, 20)),  # SOAP renews its bases every ten steps
        (Config(ndims=2, guide="flow", steps=3), (2, 2, 1)),  # the last stop is in its second attempt
        (Config(ndims=5, objective="iwae", steps=12), (5,)),
        (Config(ndims=5, preset="reference", steps=12), (5,)),
        (Config(ndims=5, dtype="float64", steps=12), (5,)),
    ],
)
@pytest.mark.usefixtures("_every_step")
def test_a_resumed_training_is_the_same(config: Config, stops: tuple[int, ...], tmp_path: Path) -> None:
    whole = fit(*build(config), config)
    path = tmp_path / "progress.safetensors"
    for steps in stops:
        stopped(config, path, steps)
    resumed = fit(*build(config), config, checkpoint=StateFile(path, config))
    assert repr(resumed.history) == repr(whole.history)  # so that history.csv is the same byte for byte
    assert without_seconds([resumed.metrics]) == without_seconds([whole.metrics])
    for one, other in ((resumed.model, whole.model), (resumed.guide, whole.guide)):
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("damage", [b"", 1, None])
@pytest.mark.usefixtures("_every_step")
def test_a_state_that_is_damaged_or_anothers_is_none(damage: bytes | int | None, tmp_path: Path) -> None:
    config, path = Config(ndims=3, steps=6), tmp_path / "progress.safetensors"
    if isinstance(damage, bytes):
        path.write_bytes(damage)
    else:
        stopped(Config(ndims=3, steps=6, seed=0 if damage else 1), path, 3)
        if damage:  # a bit of a parameter
            content = bytearray(path.read_bytes())
            content[-3] ^= damage
            path.write_bytes(content)
    assert StateFile(path, config).restore() is None
    run = fit(*build(config), config, checkpoint=StateFile(path, config))
    assert run.metrics["loss"] == fit(*build(config), config).metrics["loss"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state.pop("optimizers"),
        lambda state: state.update(history={"loss": [1.0], "lr": [1.0, 2.0]}),
        lambda state: state.update(history=[1]),
        lambda state: state.update(step="ten"),
        lambda state: state.update(generators=[torch.zeros(3)]),
        lambda state: state["model"].popitem(),
        lambda state: state.update(step=-(10**12)),
        lambda state: state.update(step=7),
        lambda state: state.update(stage=0),
        lambda state: state.update(stage=2),
        lambda state: state.update(seconds=-1.0),
        lambda state: state.update(planted={"loss": 1.0}),
        lambda state: state.update(planted=0),
        lambda state: state["history"].pop("lr"),
        lambda state: state["history"].update(more=state["history"]["lr"]),
        lambda state: state["history"]["step"].reverse(),
        lambda state: state["optimizers"][0]["0"].update(exp_avg=torch.zeros(1)),
        lambda state: state["optimizers"][0]["0"].update(step=torch.tensor(1e9)),
        lambda state: state["optimizers"][0]["0"]["exp_avg"].fill_(torch.nan),
        lambda state: state["optimizers"].append({}),
    ],
)
@pytest.mark.usefixtures("_every_step")
def test_a_state_that_was_forged_is_refused(damage: Callable[[dict], object], tmp_path: Path) -> None:
    config, path = Config(ndims=3, steps=6), tmp_path / "progress.safetensors"
    stopped(config, path, 3)
    state = StateFile(path, config).restore()
    assert state is not None
    damage(state)
    StateFile(path, config).keep(state)
    with pytest.raises(InputError, match=r"progress\.safetensors is damaged .*; delete it"):
        fit(*build(config), config, checkpoint=StateFile(path, config))


@pytest.mark.usefixtures("_every_step")
def test_on_a_full_disk_the_last_state_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, path = Config(ndims=3, steps=8), tmp_path / "progress.safetensors"
    stopped(config, path, 2)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as disk:
        disk.setattr("os.fsync", full)
        with pytest.raises(WriteError, match="No space left on device; what was there before is kept"):
            fit(*build(config), config, checkpoint=StateFile(path, config))
    state = StateFile(path, config).restore()
    assert state is not None
    assert state["step"] == 2
    assert [file.name for file in tmp_path.iterdir()] == ["progress.safetensors"]
    resumed = fit(*build(config), config, checkpoint=StateFile(path, config))
    assert resumed.metrics["loss"] == fit(*build(config), config).metrics["loss"]


def test_what_another_command_trains_is_left_to_the_end(tmp_path: Path) -> None:
    configs = [Config(ndims=3, steps=3, seed=seed) for seed in range(3)]
    taken, ended = run_path(tmp_path, configs[0]), Event()
    taken.mkdir(parents=True)

    def hold() -> None:
        with lock(taken / ".lock"):
            ended.wait(600)  # a slow machine must not end it before two runs are through

    other = Thread(target=hold)
    other.start()
    while not is_busy(taken):
        time.sleep(0.01)
    order = []
    for i, _ in run_all(lambda config, path, _: train(config, path), configs, tmp_path, 1, quiet=True):
        order.append(i)
        if len(order) == 2:
            ended.set()
    other.join()
    assert order == [1, 2, 0]


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_bar_counts_steps(jobs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bars: list[tqdm] = []

    class Bar(tqdm):
        def __init__(self, **settings: Any) -> None:
            super().__init__(file=StringIO(), **settings)
            self.seen: list[tuple[str, int, str]] = []
            bars.append(self)

        def update(self, n: float = 1) -> None:
            super().update(n)
            self.seen.append((self.desc, self.n, self.postfix or ""))

    monkeypatch.setattr("pyro_onebit.studies.executors.progress", lambda quiet, **settings: Bar(**settings))
    monkeypatch.setattr("pyro_onebit.studies.executors._TELLING", 0.0)
    configs = [Config(ndims=3, steps=steps, seed=seed) for seed, steps in ((0, 7), (1, 4))]
    run_study([configs[1]], tmp_path, 1)
    run_study(configs, tmp_path, jobs)
    alone, [*_, bar] = bars[0], bars
    assert [n for _, n, _ in alone.seen[:-1]] == [1, 2, 3, 4]
    assert (alone.total, alone.n) == (4, 4)
    assert (bar.total, bar.n, bar.desc) == (11, 11, "2/2 runs")
    # One run was there already. In another process time passes between two steps that are told of.
    steps = {n for _, n, _ in bar.seen}
    assert steps >= ({1, 2, 3, 4, 5, 6, 7} if jobs == 1 else {11})
    assert any(text == "n = 3, 1 layer, judged" for _, _, text in alone.seen)


def test_a_run_that_begins_again_makes_the_bar_longer(tmp_path: Path) -> None:
    """Its planted start was in vain: it is trained twice."""
    bar = tqdm(total=1, file=StringIO())
    shown = _Progress(bar, [Config(ndims=3, steps=5)])
    shown.begin(0)
    for step in (*range(5), *range(5)):
        shown.hear(0, step)
    shown.leave(0)
    shown.end(0)
    assert (bar.n, bar.total) == (10, 10)


def test_a_table_is_of_all_that_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interruption takes nothing out of a table that was whole."""
    configs = [Config(ndims=3, steps=3, seed=seed) for seed in range(3)]
    table = run_study(configs, tmp_path, 1).table

    def interrupted(*_: object, **__: object) -> Iterator[tuple[int, str]]:
        yield 0, "failed"
        raise KeyboardInterrupt

    monkeypatch.setattr("pyro_onebit.studies.study.run_all", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_study(configs, tmp_path, 1)
    pd.testing.assert_frame_equal(check_table(read_table(tmp_path / "results.csv"), "results"), table)


def test_another_run_in_the_same_place_ends_a_study(tmp_path: Path) -> None:
    first, second = (Config(ndims=3, steps=3, seed=seed) for seed in (0, 1))
    train(second, run_path(tmp_path, first))
    (run_path(tmp_path, first) / "metrics.json").unlink()
    with pytest.raises(InputError, match=r"holds another run \(seed 1 there, 0 here\)"):
        run_study([first, second], tmp_path, 1)


def test_only_what_is_missing_is_trained(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["study", *SMALL, "--seeds", "0", "1", "--jobs", "1", "--out", str(tmp_path)]) == 0
    first = records(read_table(tmp_path / "results.csv"))
    lost = next((tmp_path / "runs").glob("*seed1")) / "metrics.json"
    lost.unlink()
    capsys.readouterr()
    dry = ["study", *SMALL, "--seeds", "0", "1", "--out", str(tmp_path), "--dry-run"]
    assert main([*dry, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["missing"] == [lost.parent.name]
    assert main(dry) == 0
    assert "1 of 2 runs are missing" in capsys.readouterr().out
    assert main(["study", *SMALL, "--seeds", "0", "1", "--jobs", "1", "--out", str(tmp_path)]) == 0
    again = records(read_table(tmp_path / "results.csv"))
    assert again[0] == first[0]
    assert without_seconds(again) == without_seconds(first)
    assert lost.is_file()


def test_a_changed_study_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    acquire(tmp_path, StudyGrid(ndims=(3,), seeds=(0, 1)))
    acquire(tmp_path, StudyGrid(ndims=(3,), seeds=(0, 1)))
    assert main(["study", *SMALL, "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    for part in ("layers (1, 2) there, (1,) here", "seeds (0, 1) there, (0,) here", "choose another directory"):
        assert part in error
    assert error.count("\n") == 1


def test_a_study_as_a_file(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    grid = StudyGrid(ndims=(3, 4), layers=(1,), guides=("flow", "gaussian"), objectives=("elbo", "iwae"), lr=0.01)
    path = tmp_path / "study.toml"
    path.write_text(grid.to_toml())
    assert read_study(path) == grid
    assert len(grid.configs()) == 8
    assert main(["study", "--config", str(path), "--seeds", "5", "--dry-run", "--json", "--out", str(tmp_path)]) == 0
    names = json.loads(capsys.readouterr().out)["missing"]
    assert len(names) == 8
    assert all(name.endswith("seed5") and "lr0.01" in name for name in names)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ndims = 5", "ndims is 5; it must be a list of whole numbers"),
        ("ndims = [true]", "it must be a list of whole numbers"),
        ("prob = 'a'", "prob is 'a'; it must be a number"),
        ("size = 1", "a study has 'size'; it may have ndims, layers"),
        ("ndims = [", "is no TOML file"),
        ("preset = 'best'", "preset is 'best'; it must be one of"),
        ("guides = ['two_layer']\nlayers = [1]", "guide 'two_layer' has 2 layer"),
        ("seeds = [-1]", "seed is -1"),
        ("seeds = []", "seeds is empty"),
        (f"seeds = {[0] * 500}\nndims = {[5] * 500}", "the grid has 500000 combinations"),
    ],
)
def test_a_file_that_is_no_study(text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "study.toml"
    path.write_text(text)
    assert main(["study", "--config", str(path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.fixture
def bad_guides() -> None:
    own = os.getpid()

    @register_guide("raises")
    class Raises(GaussianGuide):
        def forward(self, x: Tensor) -> None:
            raise KeyError("what a guide may do")

    @register_guide("exits")
    class Exits(GaussianGuide):
        def forward(self, x: Tensor) -> None:
            sys.exit(3)

    @register_guide("sleeps")
    class Sleeps(GaussianGuide):
        def forward(self, x: Tensor) -> None:
            time.sleep(600)

    @register_guide("kills")
    class Kills(GaussianGuide):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)  # type: ignore[arg-type]
            if os.getpid() != own:
                os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.usefixtures("bad_guides")
def test_a_failure_is_a_result(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["study", *SMALL, "--guides", "gaussian", "raises", "exits", "--jobs", "1", "--out", str(tmp_path)]
    assert main(arguments) == 1
    reason = "guide 'raises', model 'one_layer': the guide fails on the codewords: KeyError: 'what a guide may do'"
    assert reason in capsys.readouterr().err
    assert read_table(tmp_path / "results.csv")["guide"].tolist() == ["gaussian"]
    failed = {row["guide"]: row["reason"] for row in records(read_table(tmp_path / "failures.csv"))}
    assert failed == {"raises": reason, "exits": "SystemExit: 3"}


@pytest.mark.usefixtures("bad_guides")
def test_a_run_that_kills_its_process_is_given_up(tmp_path: Path) -> None:
    pairs = (("gaussian", 0), ("kills", 0), ("sleeps", 0), ("gaussian", 1))
    configs = [Config(ndims=3, steps=1, guide=guide, seed=seed) for guide, seed in pairs]
    study = run_study(configs, tmp_path, jobs=2, timeout=6.0)
    assert study.table["seed"].tolist() == [0, 1]
    killed, late = study.failures.values()
    assert "each process that trained it was killed" in killed
    assert late == "it did not end within 6.0 seconds; the same command resumes it"


def test_a_cluster_that_loses_a_worker(tmp_path: Path) -> None:
    """A real scheduler and two real workers, one of which is killed; `analysis/survival.py` has four hundred runs."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    file = tmp_path / "scheduler.json"
    common: dict = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    of_scheduler = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    # Two threads: what a worker does with them must not be seen in a result.
    of_worker = ["--scheduler-file", str(file), "--nthreads", "2", "--no-nanny", "--no-dashboard"]
    python = [sys.executable, "-m"]
    processes = [subprocess.Popen([*python, "distributed.cli.dask_scheduler", *of_scheduler], **common)]
    try:
        processes += [
            subprocess.Popen([*python, "distributed.cli.dask_worker", *of_worker], **common) for _ in range(2)
        ]
        while not file.exists():
            time.sleep(0.1)
        out, seeds = tmp_path / "study", [str(seed) for seed in range(6)]
        command = [*python, "pyro_onebit", "study", *SMALL, "--seeds", *seeds, "--out", str(out)]
        # Not in this process, in which Dask's threads would stay.
        study = subprocess.Popen([*command, "--cluster", json.loads(file.read_text())["address"]], **common)
        while not list(out.glob("runs/*/metrics.json")):
            time.sleep(0.05)
            assert study.poll() is None
        processes[1].kill()
        assert study.wait(timeout=600) == 0  # far more than it takes anywhere: a limit to hanging, not to time
    finally:
        for process in processes:
            process.kill()
            process.wait()
    rows = records(check_table(read_table(out / "results.csv"), "results"))
    assert [row["seed"] for row in rows] == list(range(6))
    alone = train(Config(ndims=3, steps=20, seed=5), tmp_path / "alone")
    assert without_seconds(rows)[5] == without_seconds([alone.metrics])[0]


def test_a_cluster_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no Dask scheduler answers"):
        run_study([Config(ndims=3)], tmp_path, 1, cluster="nonsense")


def test_a_recipes_parts_are_a_studys(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(
        "ndims = [3]\nlayers = [2]\nsteps = 3\nwidth_x = 7\nwidth_z = 20\nhidden_layers = 2\nnoise_width = 1.5\n"
        'optimizer = "SGD(momentum=0.9)"\nschedule = "cosine"\n'
    )
    grid = read_study(path)
    [config] = grid.configs()
    recipe, arch = config.recipe, config.recipe.arch
    assert (recipe.steps, recipe.noise_width, recipe.schedule) == (3, 1.5, "cosine")
    assert (arch.width_x, arch.width_z, arch.hidden_layers) == (7, 20, 2)
    assert run_name(config) == (
        "layers2-ndims000003-steps3-noise_width1.5-width_x7-width_z20-hidden_layers2-SGD_momentum=0.9_-cosine"
        "-two_layer-stl-seed0"
    )
    path.write_text(grid.to_toml())
    assert read_study(path) == grid
    assert train(config, tmp_path / "run").metrics == load_run(tmp_path / "run").metrics
    with pytest.raises(InputError, match="trains on no lattice"):
        Config(preset="reference", noise_width=2.0)
