"""How the docs are built: ``sphinx-build -W docs results/docs/html``."""

import importlib.metadata
import os
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

project = "pyro_onebit"
author = "the pyro_onebit contributors"
copyright = author  # noqa: A001
release = importlib.metadata.version("pyro-onebit")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
templates_path = ["_templates"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
# The notebook is executed each time, so what it shows is what the package does; a cell that fails ends the build.
nb_execution_mode = "force"
nb_execution_timeout = 600
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_merge_streams = True
# Pyro imports a bar that misses ipywidgets, and says so with a path of this machine.
os.environ["PYTHONWARNINGS"] = "ignore:IProgress not found"
autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_custom_sections = [("Arguments", "params_style")]

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["style.css"]
html_title = f"pyro_onebit {release}"
# Formulas are MathML, which browsers draw themselves: no page fetches anything.
html_math_renderer = "mathml"


def _inline(writer: Any, node: nodes.math) -> None:
    writer.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(tex2mathml(node.astext(), as_block=True))
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Sphinx calls this."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
