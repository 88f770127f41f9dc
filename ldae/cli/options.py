# SPDX-License-Identifier: Apache-2.0
"""Options that several tools share."""

import argparse
import os
from typing import Any

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
