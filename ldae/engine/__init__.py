# SPDX-License-Identifier: Apache-2.0
"""What happens around a training step: hooks, loops and wrappers, one room a purpose."""

from .non_finite import SkipAwareEMAHook, SkipNonFiniteHook
from .resume import (
    CheckLoadedHook,
    PlainCheckpointHook,
    ResumableEpochLoop,
    ResumableIterLoop,
    SafeCheckpointHook,
    StepSeedHook,
    StopOnSignalHook,
)
from .speed import (
    ActivationCheckpointHook,
    AutocastOptimWrapper,
    CompileBlocksHook,
    FullyShardedModel,
    MatmulPrecisionHook,
)
from .tokenizer import (
    AdversarialOptimWrapperConstructor,
    FitTokenizerHook,
    LatentCacheHook,
    WriteTokenizerHook,
)
from .watch import (
    BadImagesHook,
    DeferredIterTimerHook,
    DenoisingPicturesHook,
    HealthHook,
    OnlineEvaluationHook,
    OnlineKNNHook,
    ProgressBarHook,
    ReconstructionPicturesHook,
    ReducedRuntimeInfoHook,
    RunSummaryHook,
)
