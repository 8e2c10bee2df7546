"""Tables and the report."""

from pyro_onebit.reporting.explorer import mirrored, write_explorer
from pyro_onebit.reporting.report import claim_report, write_report
from pyro_onebit.reporting.sentences import findings
from pyro_onebit.reporting.summary import summarise
from pyro_onebit.reporting.tables import (
    format_bounds,
    format_checks,
    format_runs,
    format_value,
    markdown_table,
    summary_columns,
    text_table,
)

__all__ = [
    "claim_report",
    "findings",
    "format_bounds",
    "format_checks",
    "format_runs",
    "format_value",
    "markdown_table",
    "mirrored",
    "summarise",
    "summary_columns",
    "text_table",
    "write_explorer",
    "write_report",
]
