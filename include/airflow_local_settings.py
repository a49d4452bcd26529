"""Read by every Airflow process at its start: the scheduler loads the job's libraries before it forks its workers.

A task is a fork of a worker, and a worker is a fork of the scheduler (or of the Celery worker). What is loaded here is
shared by all of them; loaded in each task, torch and pandas would cost two to four seconds a task. Only libraries are
loaded, none of the job's own modules, so that an edited file is read by the next task. Nothing is computed and no
device is touched: CUDA may not be initialised before a fork. See docs/adr/0004-libraries-before-the-fork.md.
"""

from __future__ import annotations

import sys
from importlib import import_module

TASKS = (
    "airflow.sdk.definitions.decorators",
    "airflow.timetables.base",
    "airflow.triggers.base",
    "numpy",
    "torch",
    "pandas",
    "pyarrow",
    "exchange_calendars",
    "psycopg",
    "pydantic_settings",
    "safetensors.torch",
)
TRIGGERS = ("airflow.sdk.execution_time.task_runner", "numpy", "psycopg", "pydantic_settings")
LIBRARIES = {"scheduler": TASKS, "celery": TASKS, "triggerer": TRIGGERS}

for library in LIBRARIES.get("".join(sys.argv[1:2]), ()):
    import_module(library)
