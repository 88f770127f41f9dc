# SPDX-License-Identifier: Apache-2.0
"""A training step of l-DAE against a plain PyTorch loop of timm's layers with the same maths, and against mmpretrain's MAE.

    python benchmarks/train_step.py                                    # ViT-S size, batch 16, CPU float32
    python benchmarks/train_step.py --bf16 --compile --masked
    python benchmarks/train_step.py --size half-large --batch-size 128 --device cuda --bf16 --compile --steps 30

All do the whole step with backward and AdamW; ldae and the plain loop: tokenizer, noise, encoder, decoder, loss. MAE, whose
images cost less, gets as many images as come to the same number of operations. Steps are taken in turn and medians count;
with one thread, time is the processor's. Printed are the share of an ldae step, the use of the machine (operations of the
model's matrix products, three times those of a forward pass, over the rate of one large matrix product measured in the same
rounds), the memory that a step adds, and whether a step reads anything back from the device: on a GPU torch's own sync
detector watches it, elsewhere a step on the meta device must run, where nothing can be read.
"""

import argparse
import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

import torch
from _timing import machine, medians, peak_memory, product, times_in_turn
from mmengine.registry import init_default_scope
from timm.layers import Mlp
from timm.models.vision_transformer import Attention
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ldae.engine.speed.blocks import compile_blocks
from ldae.models.layers import TimestepEmbed, patchify
from ldae.registry import MODELS

SIZES = dict(
    tiny=dict(embed_dims=192, num_layers=12, num_heads=3, feedforward_channels=768),
    small=dict(embed_dims=384, num_layers=12, num_heads=6, feedforward_channels=1536),
    base=dict(embed_dims=768, num_layers=12, num_heads=12, feedforward_channels=3072),
    **{'half-large': dict(embed_dims=1024, num_layers=12, num_heads=16, feedforward_channels=4096)},
    large=dict(embed_dims=1024, num_layers=24, num_heads=16, feedforward_channels=4096),
)
COMPILED, FAST = 'ldae, blocks compiled', 'ldae, --fast: bf16, compiled'
PRODUCTS = {False: 'a large fp32 matrix product', True: 'a large bf16 matrix product'}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--size', choices=list(SIZES), default='small')
    parser.add_argument('--batch-size', type=int, default=16)
    parser.add_argument('--img-size', type=int, default=256)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--bf16', action='store_true', help='bfloat16 autocast')
    parser.add_argument('--compile', action='store_true', help='also ldae with compiled blocks')
    parser.add_argument('--masked', action='store_true', help='also ldae whose encoder sees a quarter')
    parser.add_argument('--no-mae', action='store_true', help="leave out mmpretrain's MAE")
    parser.add_argument('--steps', type=int, default=5)
    return parser.parse_args()


def plain_modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """As DiT's own code has it."""
    return x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


class PlainBlock(nn.Module):
    """adaLN-Zero of timm's attention and MLP, as DiT's own code has it."""

    def __init__(self, dims: int, heads: int, hidden: int, cond: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dims, eps=1e-6, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(dims, eps=1e-6, elementwise_affine=False)
        self.attn = Attention(dims, num_heads=heads, qkv_bias=True)
        self.mlp = Mlp(dims, hidden)
        self.adaln = nn.Sequential(nn.SiLU(), nn.Linear(cond, 6 * dims))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaln(c).chunk(6, dim=1)
        x = x + gate1.unsqueeze(1) * self.attn(plain_modulate(self.norm1(x), shift1, scale1))
        return x + gate2.unsqueeze(1) * self.mlp(plain_modulate(self.norm2(x), shift2, scale2))


class PlainLDAE(nn.Module):
    """The method as one would write it down first: through pixels, and with nothing shared or folded."""

    def __init__(self, arch: dict, img_size: int, tokenizer: nn.Module) -> None:
        super().__init__()
        dims, cond = arch['embed_dims'], arch['embed_dims'] // 4
        self.register_buffer('basis', tokenizer.basis.clone())
        self.register_buffer('mean', tokenizer.mean.clone())
        self.register_buffer('scale', tokenizer.scale.clone())
        self.register_buffer('sigma', torch.linspace(0, 2**0.5, 1000))
        self.embed = nn.Conv2d(3, dims, 16, stride=16)
        self.pos = nn.Parameter(torch.zeros(1, (img_size // 16) ** 2, dims), requires_grad=False)
        self.time = TimestepEmbed(cond)
        block = (dims, arch['num_heads'], arch['feedforward_channels'], cond)
        self.blocks = nn.ModuleList(PlainBlock(*block) for _ in range(2 * arch['num_layers']))
        self.norm, self.out = nn.LayerNorm(dims, eps=1e-6, elementwise_affine=False), nn.Linear(dims, 768)

    def forward(self, images: Tensor) -> Tensor:
        target, side = patchify(images, 16), images.shape[-1] // 16
        with torch.no_grad():
            z0 = (target - self.mean) @ self.basis.T / self.scale
            t = torch.randint(1000, (len(images),), device=images.device)
            sigma = self.sigma[t].view(-1, 1, 1)
            patches = (z0 + sigma * torch.randn_like(z0)) * self.scale @ self.basis + self.mean
            noisy = F.fold(patches.transpose(1, 2), (side * 16, side * 16), 16, stride=16)
        x, c = self.embed(noisy).flatten(2).transpose(1, 2) + self.pos, self.time(t)
        for block in self.blocks:
            x = block(x, c)
        residual = target - self.out(self.norm(x)).float()
        error = 0.1 * residual.square().sum(-1) + 0.9 * (residual @ self.basis.T).square().sum(-1)
        return ((1 / (1 + sigma.view(-1) ** 2)) * error.mean(1) / 768).mean()


def build_ldae(args: argparse.Namespace, **parts: dict) -> nn.Module:
    """Our model with a fitted tokenizer."""
    cfg = dict(
        type='ldae.LDAE',
        tokenizer=dict(type='ldae.PatchPCATokenizer', img_size=args.img_size),
        noiser=dict(type='ldae.GaussianNoiser'),
        backbone=dict(type='ldae.LDAEViT', arch=SIZES[args.size]),
        **parts,
    )
    model = MODELS.build(cfg).to(args.device)
    model.tokenizer.fit([torch.randn(32, 3, args.img_size, args.img_size, device=args.device)])
    return model


def build_mae(args: argparse.Namespace) -> nn.Module:
    """mmpretrain's MAE with the same encoder and its own decoder."""
    arch, num_patches = SIZES[args.size], (args.img_size // 16) ** 2
    cfg = dict(
        type='MAE',
        backbone=dict(type='MAEViT', arch=arch, img_size=args.img_size, patch_size=16, mask_ratio=0.75),
        neck=dict(type='MAEPretrainDecoder', num_patches=num_patches, embed_dim=arch['embed_dims']),
        head=dict(
            type='MAEPretrainHead',
            norm_pix=True,
            patch_size=16,
            loss=dict(type='PixelReconstructionLoss', criterion='L2'),
        ),
    )
    return MODELS.build(cfg).to(args.device)


class Peer(NamedTuple):
    """Something that trains: a model, its loss of images (B, C, H, W), and a batch."""

    model: nn.Module
    loss: Callable[[nn.Module, Tensor], Tensor]
    images: Tensor
    bf16: bool

    def operations(self) -> float:
        """Of a step: three times those of the forward pass's matrix products, counted on one image."""
        model, image = copy.deepcopy(self.model).to('meta'), self.images[:1].to('meta')
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            self.loss(model, image)
        return 3.0 * counter.get_total_flops() * len(self.images)

    def step(self) -> Callable[[], None]:
        """One optimization step, as a function."""
        params = [param for param in self.model.parameters() if param.requires_grad]
        optimizer = torch.optim.AdamW(params, lr=1e-4, weight_decay=0, fused=True)

        def step() -> None:
            with torch.autocast(self.images.device.type, torch.bfloat16) if self.bf16 else nullcontext():
                value = self.loss(self.model, self.images)
            value.backward()
            optimizer.step()
            optimizer.zero_grad()

        return step


def our_loss(model: nn.Module, images: Tensor) -> Tensor:
    """As mmengine calls it."""
    return model.loss(images)['loss']


def build_peers(args: argparse.Namespace, images: Tensor) -> dict[str, Peer]:
    """All that is compared, by name; ldae comes first."""
    ours = build_ldae(args)
    peers = {'ldae': Peer(ours, our_loss, images, args.bf16)}
    if args.compile:
        peers[COMPILED] = Peer(copy.deepcopy(ours), our_loss, images, args.bf16)
    if args.compile and not args.bf16:
        peers[FAST] = Peer(copy.deepcopy(ours), our_loss, images, True)
    if args.masked:
        masked = build_ldae(args, masking=dict(type='ldae.RandomMasking'))
        peers['ldae, encoder sees a quarter'] = Peer(masked, our_loss, images, args.bf16)
    plain = PlainLDAE(SIZES[args.size], args.img_size, ours.tokenizer).to(args.device)
    peers['plain loop of timm layers'] = Peer(plain, lambda model, x: model(x), images, args.bf16)
    if not args.no_mae:
        mae = Peer(build_mae(args), lambda model, x: model.loss(x, None)['loss'], images, args.bf16)
        ratio = peers['ldae'].operations() / mae.operations()
        more = images.repeat(int(ratio) + 1, 1, 1, 1)[: max(1, round(len(images) * ratio))]
        peers[f"mmpretrain's MAE, {len(more)} images"] = mae._replace(images=more)
    return peers


def parts_around_the_network(model: nn.Module, images: Tensor) -> dict[str, Callable[[], None]]:
    """Tokenizer, noiser and loss (with its gradient), without encoder and decoder."""
    pred = torch.randn(len(images), model.tokenizer.num_tokens, 768, device=images.device, requires_grad=True)
    z0 = model.tokenizer.encode(images)
    sample = model.noiser(z0)
    return {
        'tokenizer': lambda: model.tokenizer.encode(images),
        'noiser': lambda: model.noiser(z0),
        'loss': lambda: model.head.loss(pred, sample, images, model.tokenizer)['loss'].backward(),
    }


def check_for_syncs(model: nn.Module, step: Callable[[], None], images: Tensor) -> str:
    """Raise if a step reads from the device."""
    if images.is_cuda:
        torch.cuda.set_sync_debug_mode('error')
        step()
        torch.cuda.set_sync_debug_mode('default')
        return 'none (torch.cuda.set_sync_debug_mode)'
    model.to('meta').loss(images.to('meta'))['loss'].backward()
    return 'none (forward and backward ran on the meta device)'


def products(device: str, precisions: set[bool]) -> tuple[dict[str, Callable[[], object]], dict[str, float]]:
    """A large product per precision, by name, and how many operations it does."""
    dtypes = {False: torch.float32, True: torch.bfloat16}
    found = {PRODUCTS[bf16]: product(device, dtypes[bf16]) for bf16 in sorted(precisions)}
    functions, counts = ({name: pair[i] for name, pair in found.items()} for i in range(2))
    return functions, counts


def main() -> None:
    args = parse_args()
    init_default_scope('mmpretrain')
    torch.manual_seed(0)
    images = torch.randn(args.batch_size, 3, args.img_size, args.img_size, device=args.device)
    peers = build_peers(args, images)
    operations = {name: peer.operations() for name, peer in peers.items()}
    for name in {COMPILED, FAST} & set(peers):
        compile_blocks(peers[name].model)
    steps = {name: peer.step() for name, peer in peers.items()}
    parts = parts_around_the_network(peers['ldae'].model, images)
    multiply, counts = products(args.device, {peer.bf16 for peer in peers.values()})
    times = medians(times_in_turn({**steps, **parts, **multiply}, args.steps, args.device))
    memory = {name: peak_memory(step, args.device) for name, step in steps.items()}
    print(
        f'{args.size}, batch {args.batch_size}, {args.img_size} px, {"bf16" if args.bf16 else "fp32"}, {machine(args.device)}'
    )
    rates = {name: count / times[name] for name, count in counts.items()}
    for name, rate in rates.items():
        print(f'{name}: {rate / 1e9:.1f} GFLOP/s')
    for name, operation in operations.items():
        row = f'{name:>30}: {times[name] * 1e3:9.1f} ms   ldae / it = {times[name] / times["ldae"]:.2f}'
        used = operation / times[name] / rates[PRODUCTS[peers[name].bf16]]
        print(f'{row}   {operation / 1e9:9.1f} GFLOP at {used:5.1%} of the product   {memory[name]:8.0f} MiB')
    for name in parts:
        print(f'{name:>30}: {times[name] * 1e3:9.2f} ms   of an ldae step {times[name] / times["ldae"]:6.2%}')
    total = sum(times[name] for name in parts)
    print(f'{" + ".join(parts):>30}: {total * 1e3:9.2f} ms   of an ldae step {total / times["ldae"]:6.2%}')
    ours = peers['ldae']
    print(f'host-device syncs in a step: {check_for_syncs(ours.model, steps["ldae"], images)}')


if __name__ == '__main__':
    main()
