# SPDX-License-Identifier: Apache-2.0
from .activation_checkpoint import ActivationCheckpointHook
from .bad_images import BadImagesHook
from .check_loaded import CheckLoadedHook
from .compile_blocks import CompileBlocksHook
from .denoising_pictures import DenoisingPicturesHook
from .fit_tokenizer import FitTokenizerHook
from .health import HealthHook
from .latent_cache import LatentCacheHook
from .matmul_precision import MatmulPrecisionHook
from .online_evaluation import OnlineEvaluationHook
from .online_knn import OnlineKNNHook
from .plain_checkpoint import PlainCheckpointHook
from .progress_bar import ProgressBarHook
from .reconstruction_pictures import ReconstructionPicturesHook
from .run_summary import RunSummaryHook
from .runtime_info import LateIterTimerHook, ReducedRuntimeInfoHook
from .safe_checkpoint import SafeCheckpointHook
from .skip_non_finite import SkipAwareEMAHook, SkipNonFiniteHook
from .step_seed import StepSeedHook
from .stop_on_signal import StopOnSignalHook
from .write_tokenizer import WriteTokenizerHook

__all__ = [
    'ActivationCheckpointHook',
    'BadImagesHook',
    'CheckLoadedHook',
    'CompileBlocksHook',
    'DenoisingPicturesHook',
    'FitTokenizerHook',
    'HealthHook',
    'LateIterTimerHook',
    'LatentCacheHook',
    'MatmulPrecisionHook',
    'OnlineEvaluationHook',
    'OnlineKNNHook',
    'PlainCheckpointHook',
    'ReconstructionPicturesHook',
    'ReducedRuntimeInfoHook',
    'ProgressBarHook',
    'RunSummaryHook',
    'WriteTokenizerHook',
    'SafeCheckpointHook',
    'SkipAwareEMAHook',
    'SkipNonFiniteHook',
    'StepSeedHook',
    'StopOnSignalHook',
]
