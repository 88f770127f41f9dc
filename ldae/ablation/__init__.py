# SPDX-License-Identifier: Apache-2.0
"""Pre-trainings, scored and put beside each other: rows of the paper's tables, l-DAE beside MAE, the demo."""

from .comparison import compare
from .deconstruction import ablate, plan_jobs, select_rows
from .demo import demo
from .generation import Sampling
from .jobs import Job, Member, Scoring
from .report import Summary, summarise, write_report
from .results import ResultsFile
from .scheduler import Failure, Scheduler
from .study import Outcome, Study
