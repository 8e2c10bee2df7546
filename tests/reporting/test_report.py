"""The report: one page that needs nothing else, whatever the directory holds."""

import json
import re
import shutil
from html.parser import HTMLParser
from importlib.metadata import version
from pathlib import Path

import arviz as az
import pytest
from browser import opened

from pyro_onebit import InputError
from pyro_onebit.cli import main
from pyro_onebit.files import read_table, write_table
from pyro_onebit.reporting import write_report
from pyro_onebit.studies import columns_of, records, to_table

NAMES = [column.name for column in columns_of("results")]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "<b>a study"
    small = ["--ndims", "3", "5", "--layers", "1", "--steps", "5", "--jobs", "1", "--quiet"]
    assert main(["study", *small, "--out", str(path)]) == 0
    return path


@pytest.fixture
def copy(study: Path, tmp_path: Path) -> Path:
    """Of the study, to be changed."""
    return shutil.copytree(study, tmp_path / "copy")


class Parsed(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


def test_what_is_in_it(study: Path) -> None:
    text = (study / "report.html").read_text()
    page = Parsed(text)
    assert len(page.all("img")) == 5  # information, loss, posterior, aggregate, training
    assert all(image["src"].startswith("data:image/png;base64,") and image["alt"] for image in page.all("img"))
    assert len(page.all("figcaption")) == 5
    assert "ndims = [3, 5]" in text
    assert "pyro-ppl" in text
    assert "2 runs finished, 0 failed" in text
    rows = records(read_table(study / "results.csv"))
    worst = max(rows, key=lambda row: row["loss"] - row["optimum"])
    assert f"the worst {worst['loss'] - worst['optimum']:.5f} (gaussian, n = {worst['ndims']}, seed 0)" in text
    assert "Summary" not in text  # each cell has one seed
    assert not page.all("b")  # the directory's name is text
    assert not re.search(r"https?://|<link|@import|url\(", text)


def test_failures_and_names_are_text(copy: Path) -> None:
    header = "ndims,prob,layers,guide,objective,seed,run,reason\n"
    (copy / "failures.csv").write_text(header + "3,0.5,1,<script>alert(1)</script>,elbo,0,r,<img src=x>\n")
    text = write_report(copy).read_text()
    assert "1 failed" in text
    assert "&lt;script&gt;alert(1)" in text
    assert len(Parsed(text).all("script")) == 1
    assert len(Parsed(text).all("img")) == 5


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("results.csv", b"a,b\n1\n", "is damaged"),
        ("results.csv", b"a,b\n1,2\n", "is damaged: it lacks"),
        ("results.csv", f"{','.join(NAMES)}\n{','.join('x' * len(NAMES))}\n".encode(), "a layers is 'x'"),
        ("study.toml", b"root:x:0:0", "is no TOML"),
        ("runs/x/config.json", b'{"versions": 1}', "is damaged"),
        ("figures/loss.png", b"GIF89a", "is no PNG"),
        ("runs/x/metrics.json", b"[1]", "is damaged"),
    ],
)
def test_a_damaged_study(copy: Path, name: str, content: bytes, message: str) -> None:
    path = copy / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        write_report(copy)


def test_seeds_are_summed_up(copy: Path) -> None:
    rows = [row for row in records(read_table(copy / "results.csv")) if row["ndims"] == 3]
    seeds = [{**rows[0], "seed": seed, "loss": rows[0]["optimum"] + seed / 8} for seed in range(5)]
    write_table(copy / "results.csv", to_table(seeds, "results"))
    text = write_report(copy).read_text()
    shown = re.findall(r">([\d.]+)<", text[text.index("Summary") : text.index("Results")])
    assert shown[2:7] == ["5", f"{rows[0]['optimum'] + 0.25:.5f}", "0.50000", "0.25000", "0.00000"]


def test_versions_are_those_of_the_runs(copy: Path) -> None:
    path = next((copy / "runs").iterdir()) / "config.json"
    path.write_text(re.sub(r'"torch": "[^"]*"', '"torch": "0.0.<b>"', path.read_text()))
    assert f"<td>torch</td><td>0.0.&lt;b&gt;, {version('torch')}</td>" in write_report(copy).read_text()


def test_every_runs_inference_data_on_demand(copy: Path) -> None:
    assert not list(copy.rglob("*.nc"))
    assert main(["report", str(copy), "--inference-data"]) == 0
    files = sorted((copy / "runs").glob("*/posterior.nc"))
    assert len(files) == 2
    for file in files:
        figures = json.loads((file.parent / "metrics.json").read_text())
        constants = az.from_netcdf(str(file)).constant_data
        average = float(constants.prob.values @ constants.log_evidence.values)
        assert average == pytest.approx(figures["log_evidence"], abs=1e-12)


def test_no_study(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["report", str(tmp_path)]) == 2
    assert "holds no study" in capsys.readouterr().err


def test_in_a_browser(study: Path, tmp_path: Path) -> None:
    # Sorts by the loss, downwards, as a reader would by two clicks.
    clicks = "const b=[...document.querySelectorAll('th button')].find(b=>b.textContent==='loss');b.click();b.click();"
    page = (study / "report.html").read_text()
    dom = opened(page.replace("</body>", f"<script>{clicks}</script></body>"), tmp_path)
    [column] = re.findall(r'<th class="number"[^>]* aria-sort="descending"><button type="button">(\w+)', dom)
    assert column == "loss"
    ndims = re.findall(r'<tr><td class="number" data-value="1">1</td><td class="number" data-value="(\d)">', dom)
    by_loss = sorted(records(read_table(study / "results.csv")), key=lambda row: -row["loss"])
    assert ndims == [str(row["ndims"]) for row in by_loss]
