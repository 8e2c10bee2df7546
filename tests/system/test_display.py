"""What is shown while one works: a line, and a table in a notebook."""

from collections.abc import Callable
from html.parser import HTMLParser

import pytest
import torch

from pyro_onebit import Config, InputError, Run, build, diagnostics, exact, fit, register_guide
from pyro_onebit.guides import GaussianGuide
from pyro_onebit.system import progress


class Cells(HTMLParser):
    """The rows of a table."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.feed(page)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_line_and_a_table(
    trained: Callable[..., Run], solved: Callable[..., tuple[exact.Truth, exact.Joint]]
) -> None:
    run, (truth, joint) = trained(2, 5), solved(2, 5)
    calibration = diagnostics.simulate_calibration(run.model, run.guide, run.data, 20)
    samples = diagnostics.compare_samples(truth, torch.randn(9, 2))
    for shown in (run, truth, joint, joint.z1, calibration, samples):
        assert repr(shown).startswith(f"{type(shown).__name__}(")
        assert len(repr(shown)) < 250
        assert "\n" not in repr(shown)
        caption, *cells = Cells(shown._repr_html_()).texts
        assert caption == type(shown).__name__
        assert dict(zip(cells[::2], cells[1::2], strict=True)).keys() <= shown.shown().keys()
    assert f"loss={run.metrics['loss']:.5g}" in repr(run)
    assert f"{run.metrics['kl2']:.5g}" in run._repr_html_()


def test_no_bar_where_nobody_looks(capsys: pytest.CaptureFixture) -> None:
    """Standard error is no terminal here."""
    assert list(progress(range(3), quiet=False)) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_a_guide_of_before_its_cell_was_run_again() -> None:
    def cell() -> None:
        class InACell(GaussianGuide):
            pass

        register_guide("in_a_cell")(InACell)

    cell()
    config = Config(ndims=2, guide="in_a_cell", steps=2)
    model, guide, data = build(config)
    cell()
    with pytest.raises(InputError, match="InACell as it was registered again since; take what `build"):
        fit(model, guide, data, config)
