# SPDX-License-Identifier: Apache-2.0
"""Options that several tools share."""

import argparse
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from mmengine.config import DictAction

from ldae.utils.errors import ConfigError
from ldae.utils.ranges import EXECUTORS, PRECISIONS, TFLOPS

FAILED = 1
#: Of :data:`ldae.generation.SAMPLERS`, whose room would load torch.
SAMPLERS = ('dpm++', 'ddim', 'ddpm', 'euler', 'euler-ancestral', 'heun')
MACHINES = ('processes_per_job', 'gpus_per_job', 'executor', 'partition', 'slurm', 'dry_run', 'tflops')
#: By the name that :class:`ldae.evaluation.protocol.Protocol` has for them.
PROTOCOL_OPTIONS = dict(
    k=(int, 'neighbours of k-NN'),
    temperature=(float, "of k-NN's weighted vote"),
    lrs=(float, 'learning rates of the linear layer, to choose from'),
    weight_decays=(float, 'its weight decays, to choose from'),
    epochs=(int, 'its epochs'),
    pooling=(str, "mean of the patch tokens, cls for the class token, or own for the encoder's own pooled output"),
    solver=(str, 'sgd, or lbfgs, which finds the minimum and has no learning rate'),
)

INT, FLOAT = dict(type=int), dict(type=float)
#: Of :func:`ldae.config.images.fit_images`, and those that say how a file is read.
IMAGE_OPTIONS = dict(
    channels=('bands of each file, which are read as they are: TIFF, .npy, .npz, or any picture', INT),
    bands=('numbers, from 0, of those to keep, in this order (all)', dict(INT, nargs='+')),
    value_range=('values that become 0 and 255 (all of 8 and 16 bits; others need it)', dict(FLOAT, nargs=2)),
    nodata=('value that stands for none, as nan does then: filled by the mean of its band', FLOAT),
    key=('of the array in .npz files of several', {}),
    img_size=('pixels of the images, one number or height and width', dict(INT, nargs='+')),
    patch_size=("pixels of a patch (the config's)", INT),
    divide=(
        'where patches do not divide the size: pad goes on with the edges, crop cuts out less',
        dict(choices=['pad', 'crop']),
    ),
    mean=('of each band kept (measured on training images)', dict(FLOAT, nargs='+')),
    std=('likewise, its deviation', dict(FLOAT, nargs='+')),
)
READING = ('channels', 'bands', 'value_range', 'nodata', 'key')


def make_parser(tool: str, description: str, example: str) -> argparse.ArgumentParser:
    """A parser whose ``--help`` ends with an example."""
    epilog, raw = f'example:\n  {example}', argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(f'ldae {tool}', description=description, epilog=epilog, formatter_class=raw)


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """``config``, ``--scale``, ``--cfg-options`` and ``--data-root``."""
    about = 'a config file, which is a program, or the name of one that ships with ldae, as vit-b_pca'
    parser.add_argument('config', help=about)
    about = (
        "small data and networks instead of the paper's: a name in configs/scales, or a file; with ldae train also "
        "'auto', which chooses sizes for --data-root and --budget and writes such a file"
    )
    parser.add_argument('--scale', metavar='NAME', help=about)
    add_cfg_options(parser, 'override settings of the config: a.b.c=1, a list as "a=[1,2]"')
    add_data_root(parser, 'config')


def add_cfg_options(parser: argparse.ArgumentParser, text: str) -> None:
    """``--cfg-options``."""

    def pair(word: str) -> str:
        key, sign, _ = word.partition('=')
        if not key.strip() or not sign:
            raise argparse.ArgumentTypeError(f'{word!r} must read KEY=VALUE, without spaces around "="')
        return word

    parser.add_argument('--cfg-options', nargs='+', action=DictAction, type=pair, metavar='KEY=VALUE', help=text)


#: What a ``data_root`` may be.
DATA = 'folder of the data, or wds::SHARDS, hf::TABLE or csv::LIST (docs/data.md)'


def add_image_options(parser: argparse.ArgumentParser, model: bool = True) -> None:
    """``--channels`` and what else says how images are read; with ``model``, also their size, patches and mean."""
    group = parser.add_argument_group('images', 'Of more bands, depths and shapes than pictures have: docs/shapes.md.')
    for name, (about, how) in IMAGE_OPTIONS.items():
        if model or name in READING:
            group.add_argument(f'--{name.replace("_", "-")}', metavar='X', help=about, **how)
    if model:
        add_shown_bands(group)


def add_shown_bands(parser: Any) -> None:
    """``--show-bands``."""
    about = 'one or three of the bands that the model sees, for pictures (0 1 2)'
    parser.add_argument('--show-bands', dest='shown_bands', type=int, nargs='+', metavar='I', help=about)


def image_options(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of :func:`add_image_options` that were given."""
    names = (*IMAGE_OPTIONS, 'shown_bands')
    found = {name: getattr(args, name) for name in names if getattr(args, name, None) is not None}
    if 'img_size' in found:
        found['img_size'] = size_of(found['img_size'], '--img-size')
    return found


def size_of(numbers: Sequence[int], option: str) -> int | tuple[int, int]:
    """A size that was given as one number, or as height and width."""
    if len(numbers) > 2:
        raise ConfigError(f'{option} {" ".join(map(str, numbers))}: give one number, or height and width')
    return numbers[0] if len(numbers) == 1 else tuple(numbers)


def add_data_root(parser: argparse.ArgumentParser, whose: str) -> None:
    """``--data-root``."""
    parser.add_argument('--data-root', metavar='DIR', help=f"{DATA}, instead of the {whose}'s data_root")


def add_compute_options(parser: argparse.ArgumentParser, default: str = "the config's", amp: bool = False) -> None:
    """``--device``, ``--precision`` and, for tools that had it first, ``--amp``."""
    add_device(parser)
    about = f'auto is bf16 where the device has it, else fp32; fp16 on cuda only ({default})'
    parser.add_argument('--precision', choices=PRECISIONS, help=about)
    if amp:
        about = '--precision bf16'
        parser.add_argument('--amp', dest='precision', action='store_const', const='bf16', help=about)


def add_device(parser: argparse.ArgumentParser) -> None:
    """``--device``."""
    about = 'auto, cpu, cuda or mps (auto: the GPU if there is one)'
    parser.add_argument('--device', default='auto', metavar='NAME', help=about)


def add_import(parser: argparse.ArgumentParser) -> None:
    """``--import``, of what reads a checkpoint: its config is data, and imports nothing."""
    about = (
        'register the components of your own that the checkpoint names: a *config* is a program, a checkpoint is not'
    )
    parser.add_argument('--import', dest='imports', action='append', type=imported, metavar='MODULE', help=about)


def add_ema(parser: argparse.ArgumentParser) -> None:
    """``--ema``, of what loads a checkpoint."""
    about = 'the running average of the weights that the checkpoint holds, instead of the weights'
    parser.add_argument('--ema', action='store_true', help=about)


def imported(name: str) -> str:
    """Import a module, also of the working directory."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        import_module(name)
    except ImportError as error:
        raise argparse.ArgumentTypeError(f'{name} cannot be imported: {error}') from error
    return name


def add_folder_options(parser: argparse.ArgumentParser) -> None:
    """``--split``, ``--ann-file`` and ``--workers`` of what reads every image of a folder."""
    add = parser.add_argument
    add('--split', choices=['train', 'val', 'test'], default='train', help='which images of it (train)')
    add('--ann-file', default='', metavar='FILE', help='annotation file that lists the images, below the folder')
    cores = len(os.sched_getaffinity(0))
    add('--workers', type=int, default=cores, metavar='N', help='processes (one a core)')


def add_launcher_options(parser: argparse.ArgumentParser) -> None:
    """``--launcher`` and ``--local_rank``."""
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none', help='job launcher')
    # Older launchers pass the rank as an option; torchrun sets the variable.
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)


def export_local_rank(args: argparse.Namespace) -> None:
    """mmengine reads the local rank from the environment."""
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))


def launch_options(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments that are options of :class:`ldae.launch.LaunchOptions`."""
    from ldae.launch import LaunchOptions

    export_local_rank(args)
    return vars(LaunchOptions.of(args))


def add_study_options(parser: argparse.ArgumentParser, seeds: Sequence[int], folder: str, runs: str) -> None:
    """Options of ``ablate`` and ``compare``: what is run, and how it is scored."""
    shown = ' '.join(map(str, seeds))
    add = parser.add_argument
    add('--seeds', type=int, nargs='+', default=seeds, metavar='N', help=f'one run each ({shown})')
    add('--jobs', type=int, metavar='N', help='runs at a time (1; with --executor slurm all)')
    add('--work-dir', default=folder, metavar='DIR', help=f'runs go to DIR/{runs} ({folder})')
    add_compute_options(parser)
    add_data_root(parser, 'scale')
    add_cfg_options(parser, 'override settings of all configs')
    add('--force', action='store_true', help='run finished rows again, from the start')
    add('--quick', action='store_true', help='a few hundred images and 2 epochs, to see it run')
    add_machine_options(parser)
    scoring = add_protocol_options(parser, 'k', 'lrs', 'weight_decays', 'epochs', prefix='probe-')
    add = scoring.add_argument
    about = "of l-DAE's features: the best on held-out training images is taken, row by row"
    add('--timesteps', type=int, nargs='+', metavar='T', help=about)
    add('--blocks', type=int, nargs='+', default=[-1], metavar='N', help='likewise (-1, the last)')
    for split in ('train', 'test'):
        add(f'--max-{split}-images', type=int, metavar='N', help='at most so many, sampled by class (all)')


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """``--executor``, ``--processes-per-job`` and others that say where runs run."""
    add = parser.add_argument_group('machines', 'docs/clusters.md').add_argument
    about = 'that train one run together on one machine, and share its batch (as many as its GPUs, else 1)'
    add('--processes-per-job', type=int, metavar='N', help=about)
    add('--gpus-per-job', type=int, metavar='N', help='of each run (as many as its processes)')
    about = 'this process, submitit on this machine, or Slurm by submitit (local)'
    add('--executor', choices=EXECUTORS, default='local', help=about)
    add('--partition', metavar='NAME', help='of Slurm (its default)')
    about = 'options of sbatch: account=vision qos=long time=2-00 (time 1-00, cpus-per-task 5 a process)'
    add('--slurm', nargs='+', action='extend', default=[], metavar='KEY=VALUE', help=about)
    add('--dry-run', action='store_true', help='say what would be run, and its GPU-hours, and leave it')
    add('--tflops', type=float, default=TFLOPS, metavar='X', help=f'that a GPU is assumed to do for these ({TFLOPS:g})')


def study_options(args: argparse.Namespace, tool: str, argv: Sequence[str] | None) -> dict[str, Any]:
    """The arguments that :func:`add_study_options` has added, as ``ldae.ablate`` and ``ldae.compare`` take them."""
    from ldae.ablation import Scoring

    protocol = protocol_of(args, 'k', 'lrs', 'weight_decays', 'epochs', prefix='probe-')
    limits = dict(train_images=args.max_train_images, test_images=args.max_test_images)
    kept = ('seeds', 'jobs', 'work_dir', 'data_root', 'cfg_options', 'force', 'quick', 'timesteps', 'scale')
    return dict(
        {name: getattr(args, name) for name in (*kept, *MACHINES, 'device', 'precision')},
        scoring=Scoring(protocol, tuple(args.blocks), **limits),
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
    """Call what a notebook calls: exit status 1 if a run has failed."""
    with sigterm_interrupts():
        return FAILED if study(*args, **options).failures else 0


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """SIGTERM stops what is called, and the processes that it has started, as Ctrl-C does."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def add_protocol_options(parser: argparse.ArgumentParser, *names: str, prefix: str = '') -> Any:
    """``--epochs`` and others that override the scoring protocol: the group, for more of them."""
    about = 'What is given differs from the protocol, and is written beside the results.'
    group = parser.add_argument_group('scoring', about)
    for name in names:
        kind, text = PROTOCOL_OPTIONS[name]
        many = dict(nargs='+') if name in ('lrs', 'weight_decays') else {}
        option = f'--{prefix}{name.replace("_", "-")}'
        group.add_argument(option, dest=name, type=kind, metavar='N', help=f"{text} (the protocol's)", **many)
    return group


def protocol_of(args: argparse.Namespace, *names: str, prefix: str = '') -> Any:
    """The :class:`ldae.evaluation.Protocol` with the overrides of these names that were given."""
    from ldae.evaluation import PROTOCOL, Protocol

    check_arguments(args, Protocol.__init__, *names, prefix=prefix)
    given = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    return PROTOCOL.replace(**given)


def check_arguments(args: argparse.Namespace, function: Callable, *names: str, prefix: str = '') -> None:
    """Check arguments, those of some names or all that the function has, by the annotations of the function that
    takes them: ``--epochs=0 is out of range``, with a ``prefix`` of the options' names."""
    from ldae.utils.ranges import check_value, hints_of

    hints = hints_of(function)
    for name in names or hints:
        value = getattr(args, name, None)
        if value is not None and name in hints:
            check_value(f'--{prefix}{name.replace("_", "-")}', value, hints[name])
