# SPDX-License-Identifier: Apache-2.0
"""Fitting the PCA tokenizer against one float32 matrix product of its size, and against scikit-learn's IncrementalPCA.

    python benchmarks/pca_fit.py                       # 3 x 16 x 16 patches, as at the paper's scale
    python benchmarks/pca_fit.py --device cuda

Reading and decoding images is left out: one batch lies in memory and is used over and over. ldae gets it as uint8 pixels, as
training reads them, and as normalised float32 ones; the peers get patches of those, cut out beforehand. All are timed in turn,
in the same process; the median of ``--runs`` counts, and with one thread the processor's time. What the fit keeps between
batches is printed after few and many.
"""

import argparse
import statistics
from collections.abc import Callable

import torch
from _timing import machine, seconds

from ldae.models import PatchPCATokenizer
from ldae.models.layers import patchify
from ldae.models.tokenizers import PixelCovariance, PixelNormalization

#: The slow peer gets fewer; rates are compared.
SKLEARN_PATCHES = 4096


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--img-size', type=int, default=256)
    parser.add_argument('--patch-size', type=int, default=16)
    parser.add_argument('--images', type=int, default=1024, help='images per fit (of 256 patches by default)')
    parser.add_argument('--batch-size', type=int, default=64)
    parser.add_argument('--runs', type=int, default=5)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--no-sklearn', action='store_true', help='leave out the slow peer')
    return parser.parse_args()


def peers(args: argparse.Namespace, batch: torch.Tensor, repeats: int) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    normalization = PixelNormalization(torch.full((3,), 127.5), torch.full((3,), 73.9))
    normalised = (batch.float() - 127.5) / 73.9
    rows = patchify(normalised, args.patch_size).flatten(0, 1)

    def fit(images: torch.Tensor, normalization: PixelNormalization | None) -> None:
        tokenizer = PatchPCATokenizer(args.img_size, args.patch_size, 3, 32).to(args.device)
        tokenizer.fit([images] * repeats, normalization)

    def bare_product() -> None:
        for _ in range(repeats):
            rows.t() @ rows

    functions = {
        'ldae': lambda: fit(batch, normalization),
        'ldae, float32 images': lambda: fit(normalised, None),
        'float32 products': bare_product,
    }
    if not args.no_sklearn:
        from sklearn.decomposition import IncrementalPCA

        sample = rows[:SKLEARN_PATCHES].cpu().numpy()
        functions['IncrementalPCA'] = lambda: IncrementalPCA(32, batch_size=1024).fit(sample)
    return functions


def main() -> None:
    args = parse_args()
    torch.manual_seed(0)
    shape = (args.batch_size, 3, args.img_size, args.img_size)
    batch = torch.randint(0, 256, shape, dtype=torch.uint8, device=args.device)
    repeats = args.images // args.batch_size
    patches = repeats * args.batch_size * (args.img_size // args.patch_size) ** 2
    functions = peers(args, batch, repeats)
    times = {name: [] for name in functions}
    for run in range(args.runs + 1):
        for name, function in functions.items():
            if name == 'IncrementalPCA' and run > 1:
                continue  # a hundred times slower: once after the warm-up
            elapsed = seconds(function, args.device)
            if run:
                times[name].append(elapsed)
    counts = dict.fromkeys(functions, patches) | dict(IncrementalPCA=SKLEARN_PATCHES)
    rates = {name: counts[name] / statistics.median(values) for name, values in times.items()}
    dim = 3 * args.patch_size**2
    print(f'{patches} patches of {dim}, {machine(args.device)}')
    for name, rate in rates.items():
        print(f'{name:>22}: {rate:12,.0f} patches/s   ldae / it = {rates["ldae"] / rate:.2f}')
    print_state(dim)


def print_state(dim: int) -> None:
    """The bytes that live from batch to batch, which alone could grow with the number of images."""
    stream = PixelCovariance(dim)
    for count in (1, 10):
        for _ in range(count):
            stream.update(torch.randint(0, 256, (1024, dim), dtype=torch.uint8))
        tensors = [value for value in vars(stream).values() if isinstance(value, torch.Tensor)]
        size = sum(value.numel() * value.element_size() for value in tensors)
        print(f'kept between batches, after {count} more: {size / 2**20:.1f} MiB')


if __name__ == '__main__':
    main()
