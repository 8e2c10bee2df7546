"""What a user installs: its version, its license, what it needs, and what its types say."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
#: Dependencies that nothing imports: ArviZ writes its files with them, by name, and a page holds Plotly's script.
BY_NAME = {"h5netcdf", "h5py", "plotly"}
#: What docs/bring_your_own.md says in words of what `build` returns.
CONDITIONALS = """
from torch import zeros

from pyro_onebit import Config, build

model, guide, data = build(Config(layers=2))
z = zeros(2, 1)
print(model.p_x(z), model.p_z1(z), guide.q_z1(data.codewords), guide.q_z2(z))
"""


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def distribution(requirement: str) -> str:
    """The name in a requirement, as package indices compare names."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", requirement, maxsplit=1)[0]).lower()


def declared(*extras: str) -> set[str]:
    lists = [PROJECT["optional-dependencies"][extra] for extra in extras] if extras else [PROJECT["dependencies"]]
    return {distribution(requirement) for requirements in lists for requirement in requirements}


def imported() -> set[str]:
    """The top-level names that the package imports, anywhere in it, and that are not Python's own."""
    names = set()
    for file in (ROOT / "pyro_onebit").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.module is not None, f"{file} has a relative import"
                names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - {"pyro_onebit"}


def test_the_version_is_the_same_everywhere() -> None:
    [cited] = re.findall(r"^version: (\S+)$", text("CITATION.cff"), re.MULTILINE)
    changed = re.findall(r"^## \[?([^\]\s]+)", text("CHANGELOG.md"), re.MULTILINE)
    assert cited == changed[0] == PROJECT["version"]


def test_the_license_is_there() -> None:
    assert PROJECT["license-files"] == ["LICENSE"]
    assert text("LICENSE").startswith(f"{PROJECT['license']} License")
    assert f"license: {PROJECT['license']}\n" in text("CITATION.cff")


def test_dependencies_are_what_is_imported() -> None:
    known = packages_distributions()
    needed = {name: {distribution(found) for found in known.get(name, [name])} for name in imported()}
    optional = declared("cluster") | {"arviz-stats"}  # which comes with ArviZ 1
    undeclared = {name for name, found in needed.items() if not found & (declared() | optional)}
    assert not undeclared
    assert declared() - BY_NAME == set().union(*needed.values()) & declared()


def test_constraints_pin_what_the_tests_run_with() -> None:
    lines = text("constraints.txt").splitlines()
    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    assert declared() | declared("test", "cluster", "docs") <= {distribution(line) for line in lines}


def test_the_python_of_readme_and_docs_is_typed(tmp_path: Path, pytestconfig: pytest.Config) -> None:
    scripts = {"words.py": CONDITIONALS}
    for page in ("README.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))):
        blocks = re.findall(r"^```python\n(.*?)^```$", text(page), re.MULTILINE | re.DOTALL)
        if blocks:
            scripts[f"{Path(page).stem}.py"] = "\n".join(blocks)
    assert len(scripts) > 2
    for name, script in scripts.items():
        (tmp_path / name).write_text(script, encoding="utf-8")
    # zuko has no types, and some of Pyro has none.
    settings = "[mypy]\nuntyped_calls_exclude = pyro\n[mypy-zuko.*]\nignore_missing_imports = True\n"
    (tmp_path / "mypy.ini").write_text(settings, encoding="utf-8")
    # Outside the repository and without its settings: what counts is the package as a user's mypy finds it. The first
    # time it reads all of torch and Pyro, so what it has read is kept with pytest's own.
    cache = pytestconfig.cache.mkdir("mypy") if pytestconfig.cache else tmp_path / "cache"
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=mypy.ini", f"--cache-dir={cache}", *scripts]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
