"""The page to play with, in a browser: what it shows is what Python says."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import opened

from pyro_onebit import GUIDES, InputError, OneBitData, exact
from pyro_onebit.cli import main
from pyro_onebit.reporting import mirrored, write_explorer

NDIMS = (1, 1000)
#: (n, mean, sd) of a Gaussian by hand.
SETTINGS = [
    *[(n, mean, sd) for n in (1, 2, 10, 1000) for mean, sd in ((0.9, 0.4), (0.5, 1.0), (1.5, 0.2), (0.0, 1.0))],
    *((5, 2.5, 0.1), (100, 0.05, 0.1), (100, 2.5, 1.5), (3, 0.3, 0.7)),
]
FIGURES = ("loss", "recon", "log_evidence", "mutual_information")


def close(ours: Any, theirs: Any) -> None:
    """To 1e-6, of large values relatively."""
    assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-6)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_explorer(tmp_path_factory.mktemp("explore") / "explore.html", NDIMS)


def in_browser(page: Path, script: str, tmp_path: Path) -> Any:
    """What a script in the page makes."""
    told = f"<script>document.title = JSON.stringify((() => {{ {script} }})());</script></body>"
    dom = opened(page.read_text(encoding="utf-8").replace("</body>", told), tmp_path)
    [title] = re.findall(r"<title>(.*?)</title>", dom)[:1]
    return json.loads(title.replace("&quot;", '"').replace("&amp;", "&"))


def test_it_is_small_and_needs_nothing_else(page: Path) -> None:
    assert page.stat().st_size < 6e6
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", text)
    assert "default-src 'none'" in text


def test_a_gaussian_by_hand_is_what_python_says(page: Path, tmp_path: Path) -> None:
    calls = f"return {json.dumps(SETTINGS)}.map(([n, mean, sd]) => byHand(n, mean, sd));"
    shown = in_browser(page, calls, tmp_path)
    assert len(shown) == len(SETTINGS) == 20
    for (n, mean, sd), own in zip(SETTINGS, shown, strict=True):
        figures = exact.evaluate(*mirrored([1.0], [mean], [sd]), OneBitData(n))
        close([own[name] for name in FIGURES], [figures[name] for name in FIGURES])


def test_what_is_chosen_is_shown(page: Path, tmp_path: Path) -> None:
    script = """
        const seen = [];
        const families = ["gaussian", "mixture", "two_layer", "truncated"];
        for (let n = 0; n < CONTENT.data.length; n++) for (const family of families) {
            at("n").value = n; at("family").value = family;
            document.querySelector("form").dispatchEvent(new Event("input"));
            seen.push([CONTENT.data[n].n, family, at("figures").rows[0].cells[1].dataset.value, at("story").textContent,
                document.querySelectorAll("#densities .lines .js-line").length]);
        }
        return seen;"""
    seen = in_browser(page, script, tmp_path)
    assert len(seen) == 4 * len(NDIMS)
    for n, family, loss, story, curves in seen:
        assert f"n = {n}: a datum costs {float(loss):.4f} nats" in story
        assert curves >= 4
        if family == "gaussian":
            close(float(loss), exact.optimum(n))
        if family == "truncated":
            close(float(loss), GUIDES["truncated"](n, 0.5).optimum(OneBitData(n)))


def test_families_are_ordered(page: Path) -> None:
    """A mixture holds the Gaussians, and no loss is lower than the entropy."""
    [content] = re.findall("const CONTENT = (.*);", page.read_text(encoding="utf-8"))
    one, many = (found["families"] for found in json.loads(content)["data"])
    for own in (*one.values(), *many.values()):
        assert np.all(np.diff(own["bounds"]) > -1e-9)
        assert own["bounds"][-1] <= own["log_evidence"] + 1e-9
    losses = {family: own["loss"] for family, own in many.items()}
    entropy = OneBitData(NDIMS[-1]).entropy
    assert entropy - 1e-9 <= losses["truncated"] <= losses["two_layer"] < losses["mixture"] < losses["gaussian"]


def test_another_file_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "mine.html").write_text("mine")
    assert main(["explore", "--out", str(tmp_path / "mine.html"), "--quiet"]) == 2
    assert "mine.html" in capsys.readouterr().err
    with pytest.raises(InputError):
        write_explorer(tmp_path / "mine.html", [1])
