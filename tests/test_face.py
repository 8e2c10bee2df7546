"""The package's face: what can be imported, and what that costs."""

import ast
import importlib
import subprocess
import sys
from importlib.metadata import version

import pytest

import pyro_onebit
from pyro_onebit.cli import _COMMANDS

ROOMS = ("exact", "bounds", "diagnostics", "coding", "plots")


def in_a_fresh_process(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_are_attributes(room: str) -> None:
    assert in_a_fresh_process(f"import pyro_onebit; print(pyro_onebit.{room}.__name__)") == f"pyro_onebit.{room}"


def test_what_is_not_used_is_not_imported() -> None:
    heavy = "matplotlib", "arviz", "constriction", "distributed", "jinja2"
    program = f"import sys, pyro_onebit; print([name for name in {heavy} if name in sys.modules])"
    assert in_a_fresh_process(program) == "[]"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        *([[name, "--help"], 0] for name in _COMMANDS),
        ([], 2),
        (["nonsense"], 2),
        (["study", "--nonsense"], 2),
        (["train", "--ndims", "many"], 2),
    ],
)
def test_the_command_answers_without_what_takes_long_to_import(arguments: list[str], code: int) -> None:
    heavy = "torch", "pyro", "pandas", "scipy", "numpy", "matplotlib", "arviz"
    program = f"""
import sys
from contextlib import redirect_stdout
from pyro_onebit.cli import main

with redirect_stdout(sys.stderr):
    code = main({arguments})
print(code, [name for name in {heavy} if name in sys.modules])"""
    assert in_a_fresh_process(program) == f"{code} []"


def test_the_package_is_imported_when_it_is_used() -> None:
    program = "import sys, pyro_onebit; print('torch' in sys.modules, pyro_onebit.Config.__name__, dir(pyro_onebit))"
    imported, name, *names = in_a_fresh_process(program).split(maxsplit=2)
    assert (imported, name) == ("False", "Config")
    assert set(pyro_onebit.__all__) <= set(ast.literal_eval(names[0]))


def test_every_public_name_is_there() -> None:
    for name in pyro_onebit.__all__:
        assert getattr(pyro_onebit, name) is not None
    for room in (
        "exact",
        "training",
        "studies",
        "plots",
        "reporting",
        "coding",
        "diagnostics",
        "guides",
        "models",
        "nn",
    ):
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
