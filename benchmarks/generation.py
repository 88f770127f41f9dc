# SPDX-License-Identifier: Apache-2.0
"""What a model's samples are worth: how far they are from real images, and whether labels and guidance do what they should.

    ldae train t2_pca_d32 --scale fashion-mnist_subset --epochs 30 --work-dir free
    ldae train labels_pca_d32 --scale fashion-mnist_subset --epochs 30 --work-dir classes
    python benchmarks/generation.py free/epoch_30.pth classes/epoch_30.pth --features work_dirs/demo/mae/seed0/epoch_10.pth

Samples of both models, of the untrained network, of noise in place of latents, and the test images, each as a Fréchet distance to the
training images in the features of the network that ``--features`` names; a ratio to that of the test images stands beside it.
Samples that were asked for by label are classified by a linear layer on the same features, fitted to the training images,
which knows nothing of the models; their diversity is the mean distance of two of one class, as a share of that of test images.
"""

import argparse

import numpy as np
import torch
from mmengine.registry import init_default_scope
from torch import Tensor

import ldae
from ldae.evaluation import linear_probe
from ldae.generation import ImageSampler, compare
from ldae.generation.distances import compute_statistics
from ldae.generation.extractors import build_extractor
from ldae.generation.image_sets import open_images
from ldae.generation.statistics import Statistics
from ldae.models import LDAE
from ldae.registry import DATASETS
from ldae.utils.tables import text_table


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('free', help='checkpoint of a model without labels')
    parser.add_argument('classes', help='checkpoint of a class-conditional one')
    parser.add_argument('--features', required=True, help='checkpoint of the network that compares images')
    parser.add_argument('--num', type=int, default=2000)
    parser.add_argument('--steps', type=int, default=50)
    parser.add_argument('--train', type=int, help='so many training images (all)')
    parser.add_argument('--guidance', type=float, nargs='+', default=[0.0, 1.0, 1.5, 2.0, 3.0, 5.0])
    return parser.parse_args()


def labelled(model: LDAE, split: str, limit: int | None = None) -> tuple[np.ndarray, Tensor]:
    """Images (n, H, W), uint8, and labels (n,) of a model's data set; training images without augmentation."""
    init_default_scope('mmpretrain')
    cfg = model._config[f'{split}_dataloader'].dataset.to_dict()
    cfg.pop('crop_scale', None)
    dataset = DATASETS.build(dict(cfg, with_label=True))
    batch = dataset.__getitems__(list(range(limit or len(dataset))))
    labels = torch.cat([sample.gt_label for sample in batch['data_samples']])
    return batch['inputs'].squeeze(1).numpy(), labels


def untrained(model: LDAE) -> LDAE:
    """The network at its start, with the tokenizer of the trained one."""
    torch.manual_seed(0)
    fresh = ldae.get_model(model._config, device='cpu')
    fresh.tokenizer.load_state_dict(model.tokenizer.state_dict())
    return fresh


@torch.no_grad()
def noise(model: LDAE, num: int) -> np.ndarray:
    """Noise in place of latents, decoded."""
    torch.manual_seed(0)
    z = torch.randn(num, model.tokenizer.num_tokens, model.tokenizer.latent_dim)
    return ImageSampler(model, steps=1).decode(z)


def same_class_distance(features: Tensor, labels: Tensor) -> float:
    """Mean distance of two images of one class, over classes."""
    parts = [features[labels == label] for label in labels.unique()]
    return float(np.mean([float(torch.pdist(part).mean()) for part in parts]))


def main() -> None:
    args = parse_args()
    free, classes = (ldae.get_model(checkpoint=path, device='cpu') for path in (args.free, args.classes))
    extractor = build_extractor(args.features, device='cpu')
    encode = ldae.FeatureExtractor(checkpoint=args.features, device='cpu', batch_size=256)
    train_images, train_y = labelled(classes, 'train', args.train)
    test_images, test_y = labelled(classes, 'val')

    def statistics(images: np.ndarray) -> Statistics:
        return compute_statistics(open_images(images), extractor)

    reference = statistics(train_images)
    options = dict(num=args.num, steps=args.steps, progress=False)
    guided = {scale: ldae.sample(classes, guidance=scale, **options) for scale in args.guidance}
    sets = {'test images': test_images[: args.num], 'noise, decoded': noise(free, args.num)}
    sets['untrained network'] = ldae.sample(untrained(free), **options).images
    sets['trained, without labels'] = ldae.sample(free, **options).images
    sets |= {f'class-conditional, guidance {scale:g}': samples.images for scale, samples in guided.items()}
    found = {name: compare(statistics(images), reference) for name, images in sets.items()}
    floor = found['test images'].frechet
    rows = [('images', 'n', found['test images'].name, 'to the test images', 'kernel distance', 'precision', 'recall')]
    for name, one in found.items():
        figures = (f'{one.frechet:.3f}', f'{one.frechet / floor:.1f} x', f'{one.kernel:.4f}')
        rows.append((name, str(one.samples['images']), *figures, f'{one.precision:.2f}', f'{one.recall:.2f}'))
    print(text_table(rows), end='\n\n')

    train_x, test_x = encode(train_images[..., None]), encode(test_images[..., None])
    real = same_class_distance(test_x, test_y)
    rows = [('asked for by label', 'classified so', 'diversity')]
    rows.append(('test images', f'{linear_probe(train_x, train_y, test_x, test_y).accuracy:.1f}', '1.00'))
    for scale, samples in guided.items():
        if samples.labels is None:
            continue
        x, y = encode(samples.images[..., None]), torch.from_numpy(samples.labels)
        share = linear_probe(train_x, train_y, x, y).accuracy
        rows.append((f'guidance {scale:g}', f'{share:.1f}', f'{same_class_distance(x, y) / real:.2f}'))
    print(text_table(rows))


if __name__ == '__main__':
    main()
