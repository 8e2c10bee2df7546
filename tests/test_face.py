"""The package's face: what can be imported, and what that costs."""

import ast
import importlib
import subprocess
import sys
from importlib.metadata import version

import pytest

import pyro_onebit
from pyro_onebit.cli import _COMMANDS

#: None imports one that follows, which `getattr` would find where the import has put it.
ROOMS = ("exact", "diagnostics", "bounds", "coding", "plots")


def in_a_fresh_process(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_package_and_its_rooms_are_imported_when_they_are_used() -> None:
    program = f"""
import sys, pyro_onebit
print([name for name in ("torch", "pyro", "numpy") if name in sys.modules])
for room in {ROOMS}:
    if room == "coding":
        print(pyro_onebit.Config.__name__)
        heavy = "matplotlib", "arviz", "constriction", "distributed", "jinja2"
        print([name for name in heavy if name in sys.modules])
    print(f"pyro_onebit.{{room}}" in sys.modules, getattr(pyro_onebit, room).__name__)
print(dir(pyro_onebit))"""
    *lines, names = in_a_fresh_process(program).splitlines()
    assert set(pyro_onebit.__all__) <= set(ast.literal_eval(names))
    rooms = [f"False pyro_onebit.{room}" for room in ROOMS]
    assert lines == ["[]", *rooms[:3], "Config", "[]", *rooms[3:]]


def test_the_command_answers_without_what_takes_long_to_import() -> None:
    right = [["--help"], ["--version"], *([name, "--help"] for name in _COMMANDS)]
    wrong = [[], ["nonsense"], ["study", "--nonsense"], ["train", "--ndims", "many"]]
    program = f"""
import sys
from contextlib import redirect_stdout
from pyro_onebit.cli import main

for arguments in {[*right, *wrong]}:
    with redirect_stdout(sys.stderr):
        code = main(arguments)
    heavy = "torch", "pyro", "pandas", "scipy", "numpy", "matplotlib", "arviz"
    print(code, [name for name in heavy if name in sys.modules])"""
    assert in_a_fresh_process(program).splitlines() == ["0 []"] * len(right) + ["2 []"] * len(wrong)


def test_every_public_name_is_there() -> None:
    for name in pyro_onebit.__all__:
        assert getattr(pyro_onebit, name) is not None
    for room in (*ROOMS, "training", "studies", "reporting", "guides", "models", "nn"):
        module = importlib.import_module(f"pyro_onebit.{room}")
        assert all(hasattr(module, name) for name in module.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = pyro_onebit.nonsense


def test_version() -> None:
    assert pyro_onebit.__version__ == version("pyro-onebit")
    done = subprocess.run(
        [sys.executable, "-m", "pyro_onebit", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"pyro-onebit {version('pyro-onebit')}\n"
