"""The notebook, run from its first cell to its last, as a user would."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "docs" / "one_bit_in_ten_minutes.ipynb"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Jupyter's own
def test_the_notebook(tmp_path: Path) -> None:
    """A guide is registered twice, compared on two processes, and trained; progress, runs and a figure are shown."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    [steps] = [cell for cell in notebook.cells if cell.source.startswith("STEPS = ")]
    steps.source = "STEPS = 20"
    registering = [cell for cell in notebook.cells if "@register_guide" in cell.source]
    assert len(registering) == 2

    client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    client.execute()  # which raises what a cell raises

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    progress = "".join(output.text for output in outputs if output.get("name") == "stderr")
    assert "2/2" in progress
    assert "/20 [" in progress
    shown = [output.data for output in outputs if output.output_type == "execute_result"]
    [run] = [data["text/html"] for data in shown if data["text/plain"].startswith("Run(")]
    assert "<th>guide</th><td>laplace</td>" in run
    assert "<th>steps</th><td>20</td>" in run
    printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
    shown_last = printed.splitlines()[-3:]
    assert [line.partition("(")[0] for line in shown_last] == ["Truth", "Joint", "Calibration"]
    assert sum(map(len, shown_last)) < 600
    assert any("image/png" in data for data in shown)
