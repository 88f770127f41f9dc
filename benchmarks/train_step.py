# SPDX-License-Identifier: Apache-2.0
"""A training step of l-DAE against a plain PyTorch loop of timm's layers with the same maths.

    python benchmarks/train_step.py                                    # ViT-S size, batch 16, CPU float32
    python benchmarks/train_step.py --size base --batch-size 128 --device cuda --bf16

Both do tokenizer, noise, encoder, decoder, loss, backward and AdamW; steps alternate and medians count. Printed are the ratio
of the two, the share of a step that tokenizer, noiser and loss take, and whether a step reads anything back from the device:
on a GPU torch's own sync detector watches it, elsewhere a step on the meta device must run, where nothing can be read.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
from mmengine.registry import init_default_scope
from timm.layers import Mlp
from timm.models.vision_transformer import Attention
from torch import Tensor, nn
from torch.nn import functional as F

from ldae.models.layers import TimestepEmbed, modulate, patchify
from ldae.registry import MODELS

SIZES = dict(
    tiny=dict(embed_dims=192, num_layers=12, num_heads=3, feedforward_channels=768),
    small=dict(embed_dims=384, num_layers=12, num_heads=6, feedforward_channels=1536),
    base=dict(embed_dims=768, num_layers=12, num_heads=12, feedforward_channels=3072),
    **{'half-large': dict(embed_dims=1024, num_layers=12, num_heads=16, feedforward_channels=4096)},
    large=dict(embed_dims=1024, num_layers=24, num_heads=16, feedforward_channels=4096),
)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--size', choices=list(SIZES), default='small')
    parser.add_argument('--batch-size', type=int, default=16)
    parser.add_argument('--img-size', type=int, default=256)
    parser.add_argument('--device', default='cpu')
    parser.add_argument('--bf16', action='store_true', help='bfloat16 autocast')
    parser.add_argument('--steps', type=int, default=5)
    return parser.parse_args()


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
        x = x + gate1.unsqueeze(1) * self.attn(modulate(self.norm1(x), shift1, scale1))
        return x + gate2.unsqueeze(1) * self.mlp(modulate(self.norm2(x), shift2, scale2))


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


def build(args: argparse.Namespace) -> tuple[nn.Module, nn.Module]:
    """Our model and the plain one, of the same size and with the same fitted tokenizer."""
    init_default_scope('mmpretrain')
    cfg = dict(
        type='ldae.LDAE',
        tokenizer=dict(type='ldae.PatchPCATokenizer', img_size=args.img_size),
        noiser=dict(type='ldae.GaussianNoiser'),
        backbone=dict(type='ldae.LDAEViT', arch=SIZES[args.size]),
    )
    ours = MODELS.build(cfg).to(args.device)
    ours.tokenizer.fit([torch.randn(32, 3, args.img_size, args.img_size, device=args.device)])
    return ours, PlainLDAE(SIZES[args.size], args.img_size, ours.tokenizer).to(args.device)


def stepper(
    model: nn.Module, loss: Callable[[Tensor], Tensor], images: Tensor, bf16: bool
) -> Callable[[], None]:
    """One optimization step, as a function."""
    params = [param for param in model.parameters() if param.requires_grad]
    optimizer = torch.optim.AdamW(params, lr=1e-4, weight_decay=0, fused=True)

    def step() -> None:
        with torch.autocast(images.device.type, torch.bfloat16) if bf16 else nullcontext():
            value = loss(images)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def time_in_turn(functions: dict[str, Callable[[], None]], rounds: int, device: str) -> dict[str, float]:
    """Median seconds of each, called in turn, after one warm-up round."""
    times = {name: [] for name in functions}
    for i in range(rounds + 1):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if device != 'cpu':
                torch.cuda.synchronize()
            if i:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def around_the_network(model: nn.Module, images: Tensor) -> Callable[[], None]:
    """Tokenizer, noiser and loss (with its gradient), without encoder and decoder."""
    pred = torch.randn(len(images), model.tokenizer.num_tokens, 768, device=images.device, requires_grad=True)

    def run() -> None:
        sample = model.noiser(model.tokenizer.encode(images))
        model.head.loss(pred, sample, images, model.tokenizer)['loss'].backward()

    return run


def check_for_syncs(model: nn.Module, step: Callable[[], None], images: Tensor) -> str:
    """Raise if a step reads from the device."""
    if images.is_cuda:
        torch.cuda.set_sync_debug_mode('error')
        step()
        torch.cuda.set_sync_debug_mode('default')
        return 'none (torch.cuda.set_sync_debug_mode)'
    model.to('meta').loss(images.to('meta'))['loss'].backward()
    return 'none (forward and backward ran on the meta device)'


def main() -> None:
    args = parse_args()
    torch.manual_seed(0)
    ours, plain = build(args)
    images = torch.randn(args.batch_size, 3, args.img_size, args.img_size, device=args.device)
    step = stepper(ours, lambda x: ours.loss(x)['loss'], images, args.bf16)
    functions = {
        'ldae': step,
        'plain loop of timm layers': stepper(plain, plain, images, args.bf16),
        'tokenizer + noiser + loss': around_the_network(ours, images),
    }
    times = time_in_turn(functions, args.steps, args.device)
    device = (
        torch.cuda.get_device_name() if args.device == 'cuda' else f'cpu, {torch.get_num_threads()} threads'
    )
    precision = 'bf16' if args.bf16 else 'fp32'
    print(
        f'{args.size}, batch {args.batch_size}, {args.img_size} px, {precision}, {device}, torch {torch.__version__}'
    )
    for name, value in times.items():
        print(f'{name:>26}: {value * 1e3:10.1f} ms   of an ldae step {value / times["ldae"]:6.1%}')
    print(f'host-device syncs in a step: {check_for_syncs(ours, step, images)}')


if __name__ == '__main__':
    main()
