# SPDX-License-Identifier: Apache-2.0
"""What is seen of a run while it goes on: logs, progress, scores, pictures."""

from .bad_images import BadImagesHook
from .deferred_logging import DeferredIterTimerHook, ReducedRuntimeInfoHook
from .denoising_pictures import DenoisingPicturesHook
from .health import HealthHook
from .online_evaluation import OnlineEvaluationHook
from .online_knn import OnlineKNNHook
from .progress_bar import ProgressBarHook
from .reconstruction_pictures import ReconstructionPicturesHook
from .run_summary import RunSummaryHook
