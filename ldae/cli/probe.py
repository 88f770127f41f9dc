# SPDX-License-Identifier: Apache-2.0
"""Score an encoder's blocks, time steps and inputs by k-NN and linear layers, from one pass over the images."""

import argparse
from collections.abc import Sequence

from . import options as shared

SCORING = ('pooling', 'temperature', 'lrs', 'weight_decays', 'epochs', 'solver')


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Options of ``ldae probe``."""
    parser = shared.make_parser(
        'probe',
        'Score an encoder by k-NN and linear layers, after several blocks, at several time steps, on clean and noisy input.\n'
        'One pass over the images gives all features, which are kept on disk; all linear layers are trained together.',
        'tools/probe.py work_dirs/vit-b_pca/epoch_400.pth --blocks 6-12 --timesteps 0 10 20 40 80 --input clean noisy',
    )
    add = parser.add_argument
    about = 'of l-DAE, MAE or a classifier, an official file of MAE, MoCo v3 or DINO, or a folder of timm or transformers; without one, untrained weights'
    add('checkpoints', nargs='*', metavar='CHECKPOINT', help=about + '; of several, curves over their epochs')
    about = 'a config, a name of ldae.list_models(), timm::, transformers:: or mmpretrain::NAME (the config in the checkpoint)'
    add('--config', '--model', metavar='MODEL', help=about)
    add('--pretrained', action='store_true', help='download the weights that this library has')
    add('--scale', metavar='NAME', help='bring the config to a scale, as tools/train.py does')
    shared.add_cfg_options(parser, 'override settings of the config')
    add('--data', metavar='CONFIG', help="config whose images are used (the model's own)")
    shared.add_data_root(parser, 'config')
    for split in ('train', 'test'):
        add(f'--max-{split}-images', type=int, metavar='N', help='at most so many, of each class in proportion (all)')
    add(
        '--blocks',
        nargs='+',
        default=['-1'],
        metavar='N',
        help="numbers, ranges as in 6-12, 'all', of an l-DAE 'decoder', d1 (-1, the last)",
    )
    add('--timesteps', type=int, nargs='+', metavar='T', help="of an l-DAE (the encoder's own)")
    kinds, about = ['clean', 'noisy'], 'noisy: noised to the time step'
    add('--input', nargs='+', dest='inputs', choices=kinds, default=['clean'], help=about)
    add('--k', type=int, nargs='+', metavar='K', help='neighbours (10 20 100 200, as far as there are images)')
    shared.add_protocol_options(parser, *SCORING)
    add_further(parser)
    shared.add_compute_options(parser, 'fp32')
    shared.add_import(parser)
    shared.add_ema(parser)
    add('--seed', type=int, default=0, help='of linear layers and untrained weights (0)')
    add('--memory', type=float, default=4.0, metavar='GIB', help='for the training of linear layers (4)')
    add('--work-dir', metavar='DIR', help='folder for table and pictures (work_dirs/probe/CHECKPOINT)')
    add('--cache', metavar='DIR', help='folder of the features, used again if they fit (DIR/features)')
    add('--refresh', action='store_true', help='compute features anew: images have changed in place')
    add('--verify', action='store_true', help='compare features that are used again with their checksums')
    add('--force', action='store_true', help='replace a probe.json that exists')
    shared.add_launcher_options(parser)
    return parser.parse_args(argv)


def add_further(parser: argparse.ArgumentParser) -> None:
    """Options of :class:`ldae.evaluation.further.Further`."""
    group = parser.add_argument_group('of the chosen features')
    about = 'a learned query over patch tokens: aim, efficient, or both (aim)'
    group.add_argument('--attentive', nargs='*', choices=['aim', 'efficient'], default=None, metavar='KIND', help=about)
    about = 'draw N nearest training images of some test images'
    group.add_argument('--neighbours', type=int, default=0, metavar='N', help=about)
    about = "accuracy on corrupted test images: ImageNet-C's names, or all for its fifteen (extra robustness)"
    group.add_argument('--corruptions', nargs='*', default=None, metavar='NAME', help=about)
    severities = [1, 2, 3, 4, 5]
    group.add_argument('--severities', type=int, nargs='+', default=severities, metavar='N', help='1 to 5 (all)')


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``ldae probe`` and ``tools/probe.py``."""
    args = parse_args(argv)
    # Without a value each stands for its first.
    args.attentive, args.corruptions = (
        () if given is None else given or [default]
        for given, default in ((args.attentive, 'aim'), (args.corruptions, 'all'))
    )
    import inspect

    from mmengine.dist import is_main_process

    from ldae.apis.probing import learning_curves, probe
    from ldae.evaluation.probe import report

    shared.check_arguments(args, probe)
    options = {name: value for name, value in vars(args).items() if name in inspect.signature(probe).parameters}
    options['protocol'] = shared.protocol_of(args, *SCORING)
    shared.export_local_rank(args)
    start_processes(args.launcher, args.device)
    if len(args.checkpoints) > 1:
        curves = learning_curves(args.checkpoints, **options)
        for name, points in curves.items() if is_main_process() else ():
            shown = ', '.join(f'{one["epoch"]}: {one["linear"]:.1f}' for one in points)
            print(f'{name}: {shown}')
        return
    scores = probe(*args.checkpoints, **options)
    if is_main_process():
        seconds = ', '.join(f'{name} {value} s' for name, value in scores.seconds.items())
        written = ', '.join(path.name for path in scores.files)
        print(f'\n{report(scores)}\n\n{seconds}. Wrote {written} to {scores.files[0].parent}')


def start_processes(launcher: str, device: str = 'auto') -> None:
    """Join the other processes of a distributed run."""
    from mmengine.dist import init_dist

    from ldae import compat
    from ldae.utils.device import use_device

    device = use_device(device)
    if launcher == 'none':
        return
    if device == 'cuda':
        init_dist(launcher)
    else:
        compat.init_cpu_process_group(launcher)
