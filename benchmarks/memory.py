# SPDX-License-Identifier: Apache-2.0
"""Memory that pre-training takes on a GPU, from the activations that a block saves for its backward pass, measured on any machine.

    python benchmarks/memory.py

A block of each width runs under bfloat16 autocast on 256 tokens, and the bytes of all tensors that autograd keeps are counted,
each storage once, weights left out. What a compiled block keeps is not measured here: it is less. To the blocks' share come
weights, gradients and Adam's moments in float32, and weights cast to bfloat16. A GPU holds some GiB more: its context, kernels'
workspaces, and gaps.
"""

import argparse

import torch
from mmpretrain.models.backbones import VisionTransformer
from torch import nn

from ldae.models import LDAEViT
from ldae.models.layers import DiTBlock

SIZES = {'B': 'base', 'half-L': 'half-large', 'L': 'large'}
BYTES_OF_A_WEIGHT = 4 + 4 + 8 + 2  # weight, gradient, two moments, its copy in bfloat16
TOKENS, GIB = 256, 2**30


def saved_bytes(block: nn.Module, width: int) -> int:
    """Bytes that a block keeps of one image for its backward pass."""
    storages: dict[int, int] = {}
    weights = {tuple(sorted(param.shape)) for param in block.parameters()}  # also cast, or turned

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if tuple(sorted(tensor.shape)) not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
        kept.append(tensor)
        return tensor

    kept: list[torch.Tensor] = []  # so that no storage is used twice
    tokens, cond = torch.randn(1, TOKENS, width, requires_grad=True), torch.randn(1, width // 4)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), torch.autocast('cpu', torch.bfloat16):
        block(tokens, cond)
    return sum(storages.values())


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print('| size | bytes a channel and token | 256 images | 128 | 64 |\n|---|---|---|---|---|')
    for name, arch in SIZES.items():
        shape = {**VisionTransformer.arch_zoo, **LDAEViT.arch_zoo}[arch]
        width, depth = shape['embed_dims'], 2 * shape['num_layers']
        torch.manual_seed(0)
        block = DiTBlock(width, shape['num_heads'], shape['feedforward_channels'], width // 4)
        saved = saved_bytes(block, width)
        weights = depth * sum(param.numel() for param in block.parameters())
        cells = [f'{(batch * depth * saved + BYTES_OF_A_WEIGHT * weights) / GIB:.0f} GiB' for batch in (256, 128, 64)]
        print(f'| {name} | {saved / width / TOKENS:.0f} | {" | ".join(cells)} |')


if __name__ == '__main__':
    main()
