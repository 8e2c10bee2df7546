"""What a reader reads: snippets run, tables are those that were recorded, links lead somewhere."""

import importlib
import importlib.util
import inspect
import os
import re
import runpy
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pyro
import pytest

from pyro_onebit import RECIPES

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
WITH_SNIPPETS = [page for page in PAGES if "```python\n" in page.read_text(encoding="utf-8")]
#: Rooms whose names a script may import; each has a page in the docs that lists them all.
ROOMS = re.findall(r"^   (pyro_onebit[.\w]*)$", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.MULTILINE)


def named(path: Path) -> str:
    return path.stem


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs" / "tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", WITH_SNIPPETS, ids=named)
def test_snippets_run_in_the_order_they_stand(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one core, and with few steps: what they train need not be good."""
    recipe = RECIPES["default"]
    monkeypatch.setitem(RECIPES, "default", lambda layers: replace(recipe(layers), steps=30))
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    script = tmp_path / f"{page.stem}.py"
    script.write_text("\n".join(blocks).replace("range(1000)", "range(50)"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script)])
    with pyro.get_param_store().scope():
        runpy.run_path(str(script), run_name="__main__")


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_tables_are_those_that_were_recorded(page: Path, tables: ModuleType) -> None:
    """`python docs/tables.py` would change nothing."""
    text = page.read_text(encoding="utf-8")
    assert tables.filled(text) == text


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_the_readme_is_short() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    code = False
    for line in lines:
        code ^= line.startswith("```")
        assert code or line.startswith("|") or len(line) <= 120, line


def test_every_public_room_has_a_page() -> None:
    """The page of a room lists what its ``__all__`` does (`docs/_templates`)."""
    modules = {
        name for name in importlib.import_module("pyro_onebit").__all__ if (ROOT / "pyro_onebit" / name).is_dir()
    }
    assert {f"pyro_onebit.{name}" for name in modules} | {"pyro_onebit", "pyro_onebit.bounds"} <= set(ROOMS)
    # What a page says of a name is its docstring.
    for room in ROOMS:
        module = importlib.import_module(room)
        assert module.__doc__
        for name in module.__all__:
            public = getattr(module, name)
            assert public.__doc__ or not (inspect.isclass(public) or inspect.isroutine(public)), f"{room}.{name}"
