# SPDX-License-Identifier: Apache-2.0
"""The same journey from Python, as in a notebook."""

import argparse
import os
from pathlib import Path

from photographs import make


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--out', type=Path, required=True, help='folder to work in')
    parser.add_argument('--budget', default='1m', help='for training (1m)')
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    os.chdir(args.out)
    make(Path('photographs'), 24, 8)

    import ldae

    run = ldae.train('vit-b_pca', scale='auto', budget=args.budget, data_root='photographs')
    print(run)
    loss = run.curves['loss'].values
    assert sum(loss[-10:]) < sum(loss[:10]), 'the loss did not fall'
    features = run.features('photographs/val')
    print('features', tuple(features.shape))
    clean, noisy, denoised = ldae.denoise(run.model, 'photographs/val/coffee', t=300)
    noise, rest = (abs(image.astype(float) - clean).mean() for image in (noisy, denoised))
    print(f'mean error of a pixel: {noise:.1f} of the noisy, {rest:.1f} of the denoised images')
    scores = ldae.probe(run.checkpoint)
    print(scores.chosen)
    result = ldae.benchmark('linear', run.checkpoint, epochs=5)
    print({name: result[name] for name in ('top1', 'epochs', 'seed')})
    print('encoder', sum(param.numel() for param in run.encoder.parameters()), 'parameters')


if __name__ == '__main__':
    main()
