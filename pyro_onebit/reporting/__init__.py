"""Tables and the report."""

from pyro_onebit.reporting.findings import findings
from pyro_onebit.reporting.report import claim_report, write_report
from pyro_onebit.reporting.summary import summarise
from pyro_onebit.reporting.tables import (
    format_bounds,
    format_checks,
    format_runs,
    format_summary,
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
    "format_summary",
    "format_value",
    "markdown_table",
    "summarise",
    "summary_columns",
    "text_table",
    "write_report",
]
