# SPDX-License-Identifier: Apache-2.0
"""The ``ldae`` command; each tool is a module here with ``main(argv)``, imported when it is asked for."""

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from ldae.utils.errors import nearest
from ldae.version import __version__

TOOLS = {
    'train': 'pre-train, fine-tune or probe what a config describes',
    'test': 'evaluate a checkpoint',
    'benchmark': 'score a pre-trained checkpoint by linear probe or fine-tuning',
    'fit-pca': 'fit a PCA tokenizer to a folder of images, into a file',
    'print-config': 'print a config with all that it inherits',
    'ablate': "run rows of the paper's tables, probe and compare them",
    'probe': "score an encoder's blocks and time steps by k-NN and linear layers, from one pass",
    'segment': "score an encoder's patches by linear segmentation of a folder of images and masks",
    'compare': 'l-DAE beside MAE, untrained encoders and pixels, over seeds, in one table',
    'pack-dataset': 'write the images of a folder at the size of training, to be read without decoding',
    'verify-dataset': 'list the images of a folder that cannot be read',
    'export': 'write an encoder as a plain ViT for mmpretrain, timm, transformers or ONNX',
    'reproduce': 'repeat a training step that was skipped, and say where it went wrong',
    'sample': 'sample images from a pre-trained l-DAE',
    'denoise': 'draw images, noisy and denoised by an l-DAE at chosen noise levels',
    'bound': "an l-DAE's loss by noise level, beside the best linear denoiser's",
    'report': 'write a page on runs: options, curves, tables, pictures, what is missing',
    'figures': 'draw figures of runs and of any pictures, as in the paper',
    'page': 'open a page to play with pictures, tokenizers, noise and a model',
    'fid': 'score samples against images: Fréchet distance (FID), KID, precision and recall',
    'demo': 'pre-train, probe and draw on the Fashion-MNIST subset that ships with ldae',
}


def run_tool(name: str, argv: Sequence[str] | None = None) -> int:
    """Run a tool of :data:`TOOLS`; wrong input ends in one line on stderr and exit status 2."""
    from ldae.utils.error_lines import run_explained

    # Before torch loads OpenMP: threads that wait for one another by spinning take the very cores that others, on a machine
    # that does something else as well, would finish on; a step of a small network then takes ten times as long.
    os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors='surrogateescape')  # names of files are bytes, and are printed as they are
    module = import_module(f'ldae.cli.{name.replace("-", "_")}')
    return run_explained(module.main, argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the ``ldae`` command."""
    width = max(map(len, TOOLS)) + 2
    parser = argparse.ArgumentParser(
        prog='ldae',
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description='Latent denoising autoencoders: self-supervised pre-training of Vision Transformers.',
        epilog='tools:\n'
        + ''.join(f'  {name:<{width}}{text}\n' for name, text in TOOLS.items())
        + '\nexample:\n  ldae train vit-b_pca --data-root data/imagenet\n'
        + '\n"ldae TOOL --help" shows a tool\'s options.',
    )
    parser.add_argument('--version', action='version', version=f'ldae {__version__}')
    parser.add_argument('tool', choices=list(TOOLS), metavar='TOOL', help='one of the tools below')
    parser.add_argument('args', nargs=argparse.REMAINDER, help="the tool's own arguments")
    argv = sys.argv[1:] if argv is None else list(argv)
    if not argv:
        parser.print_help()
        return 0
    if argv[0] not in TOOLS and not argv[0].startswith('-'):
        parser.error(f'there is no tool {argv[0]!r}{nearest(argv[0], TOOLS)}')
    args = parser.parse_args(argv)
    return run_tool(args.tool, args.args)


if __name__ == '__main__':
    sys.exit(main())
