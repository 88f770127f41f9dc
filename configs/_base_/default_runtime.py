# SPDX-License-Identifier: Apache-2.0
"""mmpretrain's default runtime, with checkpoints that load safely and complain when their keys don't match, and without
steps on gradients that aren't finite."""

default_scope = 'mmpretrain'

# Our hooks are here and not in `custom_hooks`: a dict is merged when a config inherits, a list is replaced.
default_hooks = dict(
    runtime_info=dict(type='ldae.ReducedRuntimeInfoHook'),
    timer=dict(type='ldae.DeferredIterTimerHook'),
    logger=dict(type='LoggerHook', interval=100),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(type='ldae.SafeCheckpointHook', interval=1, max_keep_ckpts=3),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    visualization=dict(type='VisualizationHook', enable=False),
    plain_checkpoint=dict(type='ldae.PlainCheckpointHook'),
    step_seed=dict(type='ldae.StepSeedHook'),
    check_loaded=dict(type='ldae.CheckLoadedHook'),
    skip_non_finite=dict(type='ldae.SkipNonFiniteHook'),
)

env_cfg = dict(
    cudnn_benchmark=False, mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0), dist_cfg=dict(backend='nccl')
)

vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='UniversalVisualizer', vis_backends=vis_backends)

log_level = 'INFO'
load_from = None
resume = False

# As in mmpretrain's MAE: each process draws its own masks and mixes.
randomness = dict(seed=0, diff_rank_seed=True)
