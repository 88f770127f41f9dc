# SPDX-License-Identifier: Apache-2.0
"""Rows of the paper's tables, pre-trained, probed and put beside the paper's figures: ``tools/ablate.py``."""

from .jobs import Job, Member, plan_jobs
from .report import Summary, summarise, write_report
from .results import ResultsFile
from .scheduler import Failure, Scheduler
from .selection import select_rows
