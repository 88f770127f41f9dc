# SPDX-License-Identifier: Apache-2.0
"""How much each block of encoder and decoder changes its tokens, by time step.

    python benchmarks/block_change.py work_dirs/ablation/fashion-mnist_subset/*/seed0/epoch_4.pth

A denoiser of little noise that predicts clean data can hand its input on; adaLN-Zero lets it close its blocks where the
time step says so. This prints ||block(x) - x|| / ||block(x)|| over a batch of clean images, a line a time step, and the
sigma of that step. The encoder is conditioned on t; its input is clean, as for features.
"""

import argparse

import torch
from mmengine.runner import Runner

from ldae import get_model, load_config_of

TIMESTEPS = (10, 100, 300, 600, 800)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('checkpoints', nargs='+')
    parser.add_argument('--timesteps', type=int, nargs='+', default=TIMESTEPS)
    parser.add_argument('--images', type=int, default=256)
    return parser.parse_args()


@torch.no_grad()
def changes(checkpoint: str, timesteps: list[int], images: int) -> dict[int, tuple[float, list[float]]]:
    """By time step: sigma, and the relative change by each block, the encoder's first."""
    model = get_model(checkpoint)
    loader = dict(
        load_config_of(checkpoint).train_dataloader, batch_size=images, num_workers=0, persistent_workers=False
    )
    batch = model.data_preprocessor(next(iter(Runner.build_dataloader(loader, seed=0))))['inputs']
    latents = model.tokenizer.encode(batch)
    found: list[float] = []
    for block in [*model.backbone.layers, *model.neck.layers]:
        block.register_forward_hook(lambda _, args, out: found.append(float((out - args[0]).norm() / out.norm())))
    by_timestep = {}
    for t in timesteps:
        found.clear()
        model.predict_latents(latents, torch.full((len(latents),), t))
        by_timestep[t] = float(model.noiser.sigma[t]), list(found)
    return by_timestep


def main() -> None:
    args = parse_args()
    torch.set_num_threads(1)
    for checkpoint in args.checkpoints:
        print(checkpoint)
        for t, (sigma, by_block) in changes(checkpoint, args.timesteps, args.images).items():
            print(f'  t = {t:4d}, sigma {sigma:.2f}: ' + ' '.join(f'{value:.2f}' for value in by_block))


if __name__ == '__main__':
    main()
