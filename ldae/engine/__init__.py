# SPDX-License-Identifier: Apache-2.0
"""Hooks, loops and wrappers around a training step, one room a purpose.

A room imports what stands to its right: watch > non_finite > speed > resume > hook.py, and tokenizer > hook.py."""

from .hook import LDAEHook
from .non_finite.skip_non_finite import SkipAwareEMAHook, SkipNonFiniteHook
from .resume.check_loaded import CheckLoadedHook
from .resume.data_order import StepSeedHook
from .resume.loops import ResumableEpochLoop, ResumableIterLoop
from .resume.plain_checkpoint import PlainCheckpointHook
from .resume.resumed_settings import ResumedSettingsHook
from .resume.safe_checkpoint import SafeCheckpointHook
from .resume.stop_on_signal import StopOnSignalHook
from .speed.blocks import ActivationCheckpointHook, CompileBlocksHook
from .speed.precision import AutocastOptimWrapper, MatmulPrecisionHook
from .speed.sharding import FullyShardedModel
from .tokenizer.fit_hooks import AdversarialOptimWrapperConstructor, FitTokenizerHook, WriteTokenizerHook
from .tokenizer.latent_cache import LatentCacheHook
from .watch.bad_images import BadImagesHook
from .watch.deferred_logging import DeferredIterTimerHook, ReducedRuntimeInfoHook
from .watch.health import HealthHook
from .watch.online_evaluation import OnlineEvaluationHook, OnlineKNNHook
from .watch.pictures import DenoisingPicturesHook, LossCurveHook, ReconstructionPicturesHook
from .watch.progress import BriefRunner, FirstStepsHook, ProgressBarHook, RunSummaryHook
from .watch.samples import SamplesHook
