# SPDX-License-Identifier: Apache-2.0
"""Options that several tools share."""

import argparse
import os

from mmengine.config import DictAction


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
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help='override settings of the config: a.b.c=1, a list as "a=[1,2]"',
    )
    parser.add_argument(
        '--data-root', metavar='DIR', help="folder of the data, instead of the config's data_root"
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
