# SPDX-License-Identifier: Apache-2.0
"""Options that several tools share."""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from mmengine.config import DictAction

FAILED = 1
#: Of :func:`add_study_options`, by the name that :class:`ldae.evaluation.protocol.Protocol` has for them.
PROTOCOL_OPTIONS = dict(
    k=('--probe-k', int, 'neighbours of k-NN'),
    lrs=('--probe-lrs', float, 'learning rates of the linear layer, to choose from'),
    weight_decays=('--probe-weight-decays', float, 'its weight decays, to choose from'),
    epochs=('--probe-epochs', int, 'its epochs'),
)


def make_parser(tool: str, description: str, example: str) -> argparse.ArgumentParser:
    """A parser whose ``--help`` ends with an example."""
    return argparse.ArgumentParser(
        prog=f'ldae {tool}',
        description=description,
        epilog=f'example:\n  {example}',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """``config``, ``--scale``, ``--cfg-options`` and ``--data-root``."""
    parser.add_argument('config', help='a config file, or ldae::PATH for one that ships with ldae')
    parser.add_argument(
        '--scale',
        metavar='NAME',
        help="small data and networks instead of the paper's: a name in configs/scales, or a file",
    )
    add_cfg_options(parser, 'override settings of the config: a.b.c=1, a list as "a=[1,2]"')
    add_data_root(parser, 'config')


def add_cfg_options(parser: argparse.ArgumentParser, text: str) -> None:
    """``--cfg-options``."""
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help=text)


def add_data_root(parser: argparse.ArgumentParser, whose: str) -> None:
    """``--data-root``."""
    parser.add_argument(
        '--data-root', metavar='DIR', help=f"folder of the data, instead of the {whose}'s data_root"
    )


def add_launcher_options(parser: argparse.ArgumentParser) -> None:
    """``--launcher`` and ``--local_rank``."""
    parser.add_argument(
        '--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher'
    )
    # Older launchers pass the rank as an option; torchrun sets the variable.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def export_local_rank(args: argparse.Namespace) -> None:
    """mmengine reads the local rank from the environment."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))


def launch_options(args: argparse.Namespace) -> dict[str, Any]:
    """What of the arguments is an option of :class:`ldae.launch.LaunchOptions`."""
    from ldae.launch import LaunchOptions

    export_local_rank(args)
    return vars(LaunchOptions.of(args))


def add_study_options(parser: argparse.ArgumentParser, seeds: Sequence[int], folder: str, runs: str) -> None:
    """What ``ablate`` and ``compare`` share: what is run, and how it is scored."""
    shown = ' '.join(map(str, seeds))
    parser.add_argument(
        '--seeds', type=int, nargs='+', default=seeds, metavar='N', help=f'one run each ({shown})'
    )
    parser.add_argument('--jobs', type=int, default=1, metavar='N', help='runs at a time (1)')
    parser.add_argument('--work-dir', default=folder, metavar='DIR', help=f'runs go to DIR/{runs} ({folder})')
    add_data_root(parser, 'scale')
    add_cfg_options(parser, 'override settings of all configs')
    parser.add_argument('--force', action='store_true', help='run finished rows again, from the start')
    parser.add_argument(
        '--quick', action='store_true', help='a few hundred images and 2 epochs, to see it run'
    )
    scoring = parser.add_argument_group(
        'scoring', 'What is given differs from the protocol, and is written beside the results.'
    )
    scoring.add_argument(
        '--timesteps',
        type=int,
        nargs='+',
        metavar='T',
        help="of l-DAE's features: the best on held-out training images is taken, row by row",
    )
    scoring.add_argument(
        '--blocks', type=int, nargs='+', default=[-1], metavar='N', help='likewise (-1, the last)'
    )
    for name, (option, kind, text) in PROTOCOL_OPTIONS.items():
        many = dict(nargs='+') if name.endswith('s') and name != 'epochs' else {}
        scoring.add_argument(
            option, dest=name, type=kind, metavar='N', help=f"{text} (the protocol's)", **many
        )
    for split in ('train', 'test'):
        scoring.add_argument(
            f'--max-{split}-images', type=int, metavar='N', help='at most so many, sampled by class (all)'
        )


def study_options(args: argparse.Namespace, tool: str, argv: Sequence[str] | None) -> dict[str, Any]:
    """The arguments that :func:`add_study_options` has added, as ``ldae.ablate`` and ``ldae.compare`` take them."""
    from ldae.ablation import Scoring
    from ldae.evaluation.protocol import PROTOCOL

    given = {name: getattr(args, name) for name in PROTOCOL_OPTIONS if getattr(args, name) is not None}
    limits = dict(train_images=args.max_train_images, test_images=args.max_test_images)
    kept = ('seeds', 'jobs', 'work_dir', 'data_root', 'cfg_options', 'force', 'quick', 'timesteps', 'scale')
    return dict(
        {name: getattr(args, name) for name in kept},
        scoring=Scoring(PROTOCOL.replace(**given), tuple(args.blocks), **limits),
        command=shown_command(sys.argv[1:] if argv is None else argv, tool),
    )


def shown_command(argv: Sequence[str], tool: str = 'ablate') -> str:
    """The command for a report, without the folder it wrote to, which is nobody else's."""
    shown, skip = [], False
    for word in argv:
        if not skip and word.partition('=')[0] != '--work-dir':
            shown.append(word)
        skip = word == '--work-dir'
    return shlex.join([f'tools/{tool}.py', *shown])


def run_study(study: Callable[..., Any], *args: Any, **options: Any) -> int:
    """Call what a notebook calls: exit status 1 if a run has failed; SIGTERM stops it as Ctrl-C does."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    return FAILED if study(*args, **options).failures else 0
