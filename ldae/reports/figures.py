# SPDX-License-Identifier: Apache-2.0
"""The figures by their names: what each needs, who draws it, and its twin in the paper."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
import torch
from mmengine.logging import print_log
from PIL import Image, ImageOps
from torch import Tensor

from ldae.ablation import report as results
from ldae.apis.bounding import bound
from ldae.apis.feature_extractor import FeatureExtractor, lay_out
from ldae.datasets.low_shot import evenly
from ldae.evaluation.attention import attention_maps
from ldae.evaluation.features import block_tokens, num_blocks, resolve_blocks
from ldae.evaluation.probe import accuracy_over_block, accuracy_over_timestep
from ldae.generation.denoising import check_denoiser, draw_denoising
from ldae.models.tokenizers import DCTTokenizer, PatchLinearTokenizer
from ldae.models.tokenizers.patch_pca import principal_components
from ldae.utils import ConfigError, NaturalInt, PositiveInt, Range, check_choice, checked
from ldae.utils.errors import short
from ldae.utils.models import evaluating, psnr, to_pixels
from ldae.utils.optional import import_extra
from ldae.visualization import (
    accuracy_by_encoder,
    accuracy_curves,
    add_caption,
    embedding,
    explained_variance,
    filter_grids,
    heat,
    image_columns,
    loss_over_steps,
    noise_schedules,
    retrieval_grid,
    save_figure,
)
from ldae.visualization.tiles import tile

from .sources import Source, kind_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Pictures among which neighbours are looked for, and that are embedded; queries; neighbours of each.
MANY, QUERIES, NEIGHBOURS = 500, 6, 6
THUMBNAIL = 96
#: Of which a covariance is taken.
MOST_IMAGES = 20_000


@checked
@dataclass(frozen=True, kw_only=True)
class Options:
    """Choices of what figures show.

    Args:
        schedules: Names of registered noise schedules.
        timesteps: Of the denoised pictures; None takes those of the model's validation.
        sigma: Of the noise in pixels and in latents, both of unit variance.
        blocks: Of attention and feature maps, from 1 or negative from the end; None takes the last, and four of all depths.
        seed: Of noise and embedding.
    """

    schedules: Sequence[str] = ('ddpm_linear', 'linear_gamma_sq', 'linear_sigma')
    timesteps: Sequence[NaturalInt] | None = None
    sigma: Annotated[float, Range(0, 100)] = math.sqrt(1 / 3)
    blocks: Sequence[int] | None = None
    seed: NaturalInt = 0


class Drawn(NamedTuple):
    """A figure: the parts of a :class:`Source` that it needs, the function that draws it, its caption."""

    needs: Sequence[str]
    draw: Callable[[Source, Options], 'Figure | None']
    caption: str


#: The figures by their names.
FIGURES: dict[str, Drawn] = {}


def figures(
    run: Any = None,
    names: Sequence[str] | None = None,
    images: Any = None,
    count: PositiveInt = 4,
    device: Any = None,
    pretrained: bool = False,
    captions: bool = True,
    **options: Any,
) -> dict[str, 'Figure']:
    """Figures by their names, as matplotlib's.

    Args:
        run: A work dir of a training, an ablation, a comparison, a probe or the demo; a checkpoint, a tokenizer's file, an
            exported folder, a model, the name of another library's; or several of these.
        names: Keys of :data:`ldae.reports.FIGURES`; None draws all for which there is what they need, and logs why others are left
            out.
        images: The pictures, as :class:`ldae.FeatureExtractor` takes them; None takes test images of the run.
        count: Most pictures in a figure.
        device, pretrained: As of :func:`ldae.get_encoder`.
        captions: Write each figure's caption below it.
        **options: Fields of :class:`ldae.reports.Options`.

    Raises:
        ConfigError: For a run that isn't one, an unknown name, or what a named figure needs and isn't there.
    """
    runs = run if isinstance(run, list | tuple) else [] if run is None else [run]
    source = Source(runs, images, count, device, pretrained)
    found = {}
    for name, figure in draw_figures(source, names, Options(**options), captions):
        if isinstance(figure, str):
            print_log(f'{name} is left out: {figure}', 'current')
        else:
            found[name] = figure
    return found


def draw_figures(
    source: Source, names: Sequence[str] | None = None, options: Options | None = None, captions: bool = True
) -> Iterator[tuple[str, 'Figure | str']]:
    """Each name with its figure; where none is named, also those that can't be drawn, with the reason."""
    for name in names or ():
        check_choice('figures', name, FIGURES)
    for name in FIGURES if names is None else dict.fromkeys(names):
        try:
            figure = draw(source, name, options or Options())
        except (ConfigError, OSError, RuntimeError) as error:  # RuntimeError: of a network that can't take the pictures
            if names is not None:
                raise
            yield name, str(error) if isinstance(error, ConfigError) else short(error)
            continue
        yield name, add_caption(figure, FIGURES[name].caption.format(o=options or Options())) if captions else figure


def save_figures(
    source: Source,
    names: Sequence[str] | None,
    options: Options,
    out: Path,
    formats: Sequence[str] = ('png',),
    force: bool = False,
    captions: bool = True,
) -> Iterator[str]:
    """Write figures to a folder as they are drawn, ``<name>.<format>``; gives a line for each file, and for each figure left out."""
    for path in (out / f'{name}.{suffix}' for name in names or FIGURES for suffix in formats):
        if path.exists() and not force:
            raise ConfigError(f'{path} exists: name another folder with --out, or add --force to replace it')
    for name, figure in draw_figures(source, names, options, captions):
        if isinstance(figure, str):
            yield f'left out: {name}: {figure}'
        else:
            yield from (f'written: {save_figure(figure, out / f"{name}.{suffix}")}' for suffix in formats)


def draw(source: Source, name: str, options: Options) -> 'Figure':
    """One figure. Raises ConfigError where what it needs isn't there."""
    needs, function, _ = FIGURES[name]
    for need in needs:
        getattr(source, need)
    figure = function(source, options)
    if figure is None:
        raise source.lacks(f'not enough results for {name}')
    return figure


def drawn(*needs: str) -> Callable[[Callable], Callable]:
    """Enter a function ``draw_<name>`` in :data:`FIGURES`; its docstring is the caption, with fields of ``o``, the options."""

    def enter(function: Callable[[Source, Options], 'Figure | None']) -> Callable:
        caption = ' '.join((function.__doc__ or '').split())
        FIGURES[function.__name__.removeprefix('draw_')] = Drawn(needs, function, caption)
        return function

    return enter


@drawn()
def draw_schedules(source: Source, options: Options) -> 'Figure':
    """Noise schedules: signal, noise, and their ratio. Twin: the figure of the schedules of DDPM and of the paper, of
    the signal alone."""
    return noise_schedules(options.schedules)


@drawn('tokenizers')
def draw_filters(source: Source, options: Options) -> 'Figure':
    """Filters of tokenizers, rows of V, the most important first; each spans its own range, grey is 0. Twin: the
    paper's Figure 4."""
    linear = [one for one in source.tokenizers if isinstance(one, PatchLinearTokenizer) and one.is_fitted]
    if not linear:
        raise source.lacks('no fitted tokenizer that is linear per patch')
    bases, geometry = {}, linear[0].geometry
    for one in (one for one in linear if one.geometry[1:3] == geometry[1:3]):
        rows, dim = one.patch_map.encoder.cpu(), one.latent_dim
        if not isinstance(one, DCTTokenizer):
            rows = rows[one.variances[:dim].cpu().argsort(descending=True, stable=True)]
        bases.setdefault(f'{kind_of(one)}, d = {dim}', rows)
    dct = DCTTokenizer(*geometry, latent_norm='none')
    bases.setdefault(f'DCT, d = {geometry.latent_dim}', dct.basis)
    return filter_grids(bases, geometry.patch_size, geometry.in_channels)


@drawn('tokenizers')
def draw_variance(source: Source, options: Options) -> 'Figure':
    """Share of the patches' variance that the first d principal components hold. No twin in the paper."""
    for one in source.tokenizers:
        if one.is_fitted and one.kept_variance is not None:
            return explained_variance(one.explained_variance_ratio, one.latent_dim)
    raise source.lacks('no tokenizer that knows the variance of the patches')


@drawn('tokens')
def draw_noise(source: Source, options: Options) -> 'Figure':
    """Noise of sigma = {o.sigma:.2f} in pixels and in latents, both of unit variance. Noise in the latents of patches
    changes whole patches, akin to masking. Twin: the picture of noise in pixels and latents of the paper and its
    poster."""
    tokens, sigma = source.tokens, options.sigma
    images, generator = tokens[0].images, torch.Generator().manual_seed(options.seed)
    noise = torch.randn(images.shape, generator=generator).to(images)
    noisy = images + sigma * images.std() * noise
    columns = {'clean\n': tokens[0].to_pixels(images), 'noise in\npixels': tokens[0].to_pixels(noisy)}
    for one in tokens:
        z = one.tokenizer.encode(one.images)
        z = z + sigma * torch.randn(z.shape, generator=generator).to(z)
        name = f'noise in latents\n{kind_of(one.tokenizer)}, d = {one.tokenizer.latent_dim}'
        columns.setdefault(name, one.to_pixels(one.tokenizer.decode(z)))
    return image_columns(columns, 1.5)


@drawn('denoiser', 'images')
def draw_denoised(source: Source, options: Options) -> 'Figure':
    """Pictures, noisy and denoised in one step at several levels. Twin: the paper's last figure."""
    model = check_denoiser(source.model, list(options.timesteps or ()))
    with evaluating(model):
        return draw_denoising(model, source.images, options.timesteps or model.val_timesteps, options.seed)


@drawn('denoiser')
def draw_bound(source: Source, options: Options) -> 'Figure':
    """Weighted loss on held-out images by noise level, beside that of the best linear denoiser for the covariance of the training
    images, in closed form: a bound only where images are Gaussian. No twin in the paper."""
    limits = dict(max_train_images=MOST_IMAGES, max_test_images=MOST_IMAGES // 20)
    return bound(source.denoiser, data_root=source.data_root, timesteps=options.timesteps, **limits).figure()


@drawn('tokens')
def draw_reconstruction(source: Source, options: Options) -> 'Figure':
    """Pictures as the first d dimensions of their latents keep them, and the mean PSNR. No twin in the paper."""
    columns = {'original\n\n': source.tokens[0].to_pixels(source.tokens[0].images)}
    for one in source.tokens:
        z, dim = one.tokenizer.encode(one.images), one.tokenizer.latent_dim
        is_ordered = kind_of(one.tokenizer) in ('PCA', 'DCT')
        for kept in sorted({dim, *(2**i for i in range(dim.bit_length()) if 2**i < dim)} if is_ordered else {dim})[-6:]:
            first = torch.zeros_like(z)
            first[..., :kept] = z[..., :kept]
            pixels, clean = one.to_pixels(one.tokenizer.decode(first)), one.to_pixels(one.images)
            columns.setdefault(f'{kind_of(one.tokenizer)}\nd = {kept}\n{psnr(pixels, clean).mean():.1f} dB', pixels)
    return image_columns(columns)


@drawn('log')
def draw_levels(source: Source, options: Options) -> 'Figure | None':
    """Denoising of validation images by noise level t over the training. No twin in the paper."""
    panels: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for key, points in source.log.items():
        for title, start in (('loss', 'denoising/weighted_error_t'), ('PSNR (dB)', 'denoising/psnr_t')):
            if key.startswith(start):
                panels.setdefault(title, {})[f't = {key.removeprefix(start)}'] = points
    return accuracy_curves(panels, source.training.axis_of('denoising/psnr'), unit='') if panels else None


@drawn('log')
def draw_loss(source: Source, options: Options) -> 'Figure | None':
    """Logged loss of the training. No twin in the paper."""
    return loss_over_steps({'training': source.log['loss']}) if 'loss' in source.log else None


@drawn('summaries')
def draw_dimension(source: Source, options: Options) -> 'Figure | None':
    """Accuracy over the latent dimension. Twin: the paper's figures of Table 2 and Figure 5. Ours are of small data and
    networks, and compare with the paper's in order only."""
    return results.draw_dimension(source.summaries, source.scale)


@drawn('summaries')
def draw_axis(source: Source, options: Options) -> 'Figure | None':
    """Accuracy over the share of an image's tokens that are noised, by the level of their noise, all others being clean: from MAE,
    where they are hidden, to l-DAE, where all are noised alike. No twin in the paper."""
    return results.draw_axis(source.summaries, source.scale)


@drawn('summaries')
def draw_road(source: Source, options: Options) -> 'Figure | None':
    """From the diffusion transformer to the l-DAE, step by step. Twin: the paper's trajectory. Ours are of small data
    and networks (d in the names is the paper's), and compare with the paper's in order only."""
    return results.draw_road(source.summaries, source.scale)


@drawn('summaries')
def draw_rows(source: Source, options: Options) -> 'Figure | None':
    """All rows that were run, beside the paper's figures. Twin: the paper's tables."""
    return results.draw_rows(source.summaries, source.scale)


@drawn('summaries')
def draw_distance(source: Source, options: Options) -> 'Figure | None':
    """Accuracy against the Fréchet distance of samples. Names that would cover others are left out. Twin: both columns
    of the paper's Table 1."""
    return results.draw_distance(source.summaries, source.scale)


@drawn('comparison')
def draw_encoders(source: Source, options: Options) -> 'Figure':
    """Encoders of a comparison, mean and deviation over seeds. Twin: the paper's Table 4, of other data and sizes."""
    return accuracy_by_encoder(source.comparison)


@drawn('probe')
def draw_timesteps(source: Source, options: Options) -> 'Figure | None':
    """Accuracy by the fixed time step that features are taken at. Twin: the paper's appendix A."""
    return accuracy_over_timestep(source.probe) if len({row.timestep for row in source.probe}) > 1 else None


@drawn('probe')
def draw_blocks(source: Source, options: Options) -> 'Figure | None':
    """Accuracy by the block that features are taken after. Twin: the paper's appendix A, which cuts the network at
    several blocks and trains each anew."""
    return accuracy_over_block(source.probe) if len({row.block for row in source.probe}) > 1 else None


@drawn('model', 'images')
def draw_attention(source: Source, options: Options) -> 'Figure':
    """Attention of the class token, or of all patches on average, from the least (blue) to the most (yellow) of each
    map. No twin in the paper."""
    block = resolve_blocks(num_blocks(source.model), [options.blocks[-1]] if options.blocks else None)[0]
    maps = attention_maps(source.model, source.images, block)
    columns = {'picture': shown(source), f'block {block}, mean': maps.mean(dim=1)}
    columns |= {f'head {i + 1}': maps[:, i] for i in range(maps.shape[1])}
    for name in [*columns][1:]:
        grid = lay_out(columns[name][:, :, None], source.images, 'featmap')[:, 0]
        columns[name] = heat(grid, tuple(source.images.shape[2:]))
    return image_columns(columns)


@drawn('model', 'images')
def draw_features(source: Source, options: Options) -> 'Figure':
    """The first three principal components of the patch features of all pictures, as red, green and blue. No twin in
    the paper."""
    depth = num_blocks(source.model)
    quarters = sorted({max(1, round(depth * i / 4)) for i in range(1, 5)})
    columns = {'picture': shown(source)}
    for block in resolve_blocks(depth, options.blocks or quarters):
        with torch.no_grad(), evaluating(source.model):
            tokens = block_tokens(source.model, source.images, block)
        grid = lay_out(principal_colours(tokens), source.images, 'featmap')
        size = tuple(source.images.shape[2:])
        columns[f'block {block}'] = torch.nn.functional.interpolate(grid, size)
    return image_columns(columns)


def principal_colours(tokens: Tensor) -> Tensor:
    """Tokens (B, N, C) -> their first three principal components over all pictures, (B, N, 3), each from 0 to 255 between its
    percentiles 1 and 99."""
    rows = tokens.flatten(0, 1).double().cpu()
    rows = rows - rows.mean(dim=0)
    parts = rows @ principal_components(rows.t() @ rows)[1][:3].t()
    low, high = (torch.quantile(parts, q, dim=0) for q in (0.01, 0.99))
    return (255 * ((parts - low) / (high - low).clamp(min=1e-12)).clamp(0, 1)).float().unflatten(0, tokens.shape[:2])


def shown(source: Source) -> Tensor:
    """The pictures as the model sees them, in [0, 255]."""
    return to_pixels(source.images, source.model.data_preprocessor).cpu()


@drawn('model')
def draw_neighbours(source: Source, options: Options) -> 'Figure':
    """Pictures (left) and those with the nearest features, of the same class (green, bold) and others. No twin in the
    paper."""
    pictures, names = source.pictures(MANY)
    if len(pictures) < 3:
        raise ConfigError(f'{len(pictures)} pictures are too few to look for neighbours among: name a folder of them')
    rows = torch.nn.functional.normalize(many_features(source, pictures), dim=1)
    similarity = (rows @ rows.t()).fill_diagonal_(-2)
    queries = evenly(range(len(pictures)), QUERIES)
    nearest = similarity[queries].topk(min(NEIGHBOURS, len(pictures) - 1)).indices.tolist()
    small = {i: thumbnail(pictures[i]) for query, row in zip(queries, nearest, strict=True) for i in (query, *row)}
    chosen = [[query, *row] for query, row in zip(queries, nearest, strict=True)]
    return retrieval_grid([[small[i] for i in row] for row in chosen], [[names[i] for i in row] for row in chosen])


def thumbnail(picture: np.ndarray) -> Tensor:
    """A small square RGB picture (3, h, w) of a BGR one (H, W, 3), or of bands."""
    step = -1 if picture.shape[2:] == (3,) else 1
    bands = torch.from_numpy(np.atleast_3d(picture)[..., ::step].copy()).permute(2, 0, 1)
    small = ImageOps.fit(Image.fromarray(tile(bands[None], 1)), (THUMBNAIL,) * 2)
    return torch.from_numpy(np.array(small)).permute(2, 0, 1)


def many_features(source: Source, pictures: Sequence[np.ndarray]) -> Tensor:
    """Features (n, C) of BGR pictures, or bands."""
    return torch.cat(list(FeatureExtractor(source.model, batch_size=64).of_pictures(pictures)))


@drawn('model')
def draw_embedding(source: Source, options: Options) -> 'Figure':
    """Features in the plane, by UMAP where umap-learn is installed, else by t-SNE; distances between clusters say little. No
    twin in the paper."""
    pictures, names = source.pictures(MANY)
    if len(pictures) < 8:
        raise ConfigError(f'{len(pictures)} pictures are too few to embed: name a folder of them')
    rows = many_features(source, pictures).numpy()
    try:
        umap, neighbours = import_extra('umap', 'figures', 'UMAP'), min(15, len(rows) - 1)
        method, name = umap.UMAP(random_state=options.seed, n_neighbors=neighbours, n_jobs=1), 'UMAP'
    except (ConfigError, ImportError):  # it isn't installed, or lacks something itself
        manifold = import_extra('sklearn.manifold', 'figures', 'the figure embedding')
        method, name = manifold.TSNE(perplexity=min(30, len(rows) / 4), random_state=options.seed), 't-SNE'
    figure = embedding(method.fit_transform(rows), names)
    figure.axes[0].set_title(f'{name} of {len(rows)} pictures', fontsize=9)
    return figure
