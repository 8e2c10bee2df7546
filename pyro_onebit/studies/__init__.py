"""Runs on disk, grids of runs, studies and comparisons."""

from pyro_onebit.studies.checkpoint import StateFile
from pyro_onebit.studies.comparison import compare, compare_runs, comparison_row
from pyro_onebit.studies.executors import run_all
from pyro_onebit.studies.grid import STUDY_FILE, StudyGrid, acquire, read_study, run_name, run_path
from pyro_onebit.studies.inference_data import to_inference_data, write_inference_data
from pyro_onebit.studies.runs import (
    claim_run,
    finished_runs,
    is_busy,
    is_finished,
    load_config,
    load_run,
    read_history,
    read_metrics,
    read_versions,
    save_run,
    train,
)
from pyro_onebit.studies.schema import (
    CELL,
    COLUMNS,
    ORIGINAL,
    Column,
    Kind,
    check_table,
    columns_of,
    complete_metrics,
    records,
    shown_columns,
    to_table,
    with_derived,
)
from pyro_onebit.studies.study import Study, cell_of, claim_tables, missing, run_study

__all__ = [
    "CELL",
    "COLUMNS",
    "ORIGINAL",
    "STUDY_FILE",
    "Column",
    "Kind",
    "StateFile",
    "Study",
    "StudyGrid",
    "acquire",
    "cell_of",
    "check_table",
    "claim_run",
    "claim_tables",
    "columns_of",
    "compare",
    "compare_runs",
    "comparison_row",
    "complete_metrics",
    "finished_runs",
    "is_busy",
    "is_finished",
    "load_config",
    "load_run",
    "missing",
    "read_history",
    "read_metrics",
    "read_study",
    "read_versions",
    "records",
    "run_all",
    "run_name",
    "run_path",
    "run_study",
    "save_run",
    "shown_columns",
    "to_inference_data",
    "to_table",
    "train",
    "with_derived",
    "write_inference_data",
]
