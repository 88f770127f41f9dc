# SPDX-License-Identifier: Apache-2.0
"""From a picture and settings to the panels of the page: plain arrays, without a browser."""

import math
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from ldae.apis.images import read_images, some_of
from ldae.apis.preprocess import Preprocess
from ldae.datasets.idx import SUBSET_ROOT, read_idx
from ldae.datasets.load_image import decode
from ldae.generation.denoising import prepared_images
from ldae.generation.sampling import ImageSampler, moments_of_data
from ldae.generation.start import Moments, starts_from_noise
from ldae.models import LDAE
from ldae.models.layers import patchify, unpatchify
from ldae.models.noisers import GaussianNoiser
from ldae.models.tokenizers import BaseTokenizer, DCTTokenizer, Geometry, PatchPCATokenizer, RandomProjectionTokenizer
from ldae.reports.figures import MANY, NEIGHBOURS, Options, draw, many_features, thumbnail
from ldae.reports.sources import EDGE, PIXELS, Source, is_tokenizer, kind_of, normalised
from ldae.utils import Choice, ConfigError, PositiveInt, Range, check_choice, check_range, checked
from ldae.utils.models import evaluating, psnr, to_pixels
from ldae.utils.ranges import Seed
from ldae.utils.sizes import height_width
from ldae.visualization import figure_to_array, tile

PATCH, TIMESTEPS, MAX_SIGMA = 16, 1000, 2.0
SCHEDULES = ('linear_sigma', 'linear_gamma_sq', 'ddpm_linear')
#: Of what is uploaded: pixels, and its longer edge, to which it is reduced.
MAX_PIXELS, LONGEST = 40_000_000, 1024
#: Most pictures of the user's that a PCA is fitted to, of the shipped ones, and that are offered.
FITTED, SHIPPED, OFFERED = 64, 500, 12
PHOTOGRAPHS = ('astronaut.png', 'chelsea.png', 'coffee.png', 'rocket.jpg', 'hubble_deep_field.jpg', 'ihc.png')


class Picture(NamedTuple):
    """A picture as it was read, uint8 BGR (H, W, 3), and as tokenizers take it, normalised (1, C, h, w)."""

    bgr: np.ndarray
    inputs: Tensor


class Panel(NamedTuple):
    """An image, uint8 RGB (H, W, 3), and what it is."""

    caption: str
    image: np.ndarray


class Coder(NamedTuple):
    """A tokenizer of which the first d of ``dims`` dimensions can be taken: images (1, C, H, W) and d -> latents (N, d) of
    about unit variance; back; and the share of variance that d dimensions keep, where it is known."""

    dims: int
    encode: Callable[[Tensor, int], Tensor]
    decode: Callable[[Tensor], Tensor]
    kept: Callable[[int], float | None]


@checked
@dataclass(frozen=True, kw_only=True)
class Settings:
    """Choices of the page; each is checked, as whatever a browser sends may be anything.

    Args:
        tokenizer: A key of :attr:`Workbench.coders`.
        d: Dimensions that are kept; of a tokenizer that has fewer, all.
        level: What says how much noise there is: sigma, on latents as they are, or t, of a schedule.
        sigma, t, schedule: Of these.
        seed: Of the noise.
    """

    tokenizer: str = 'PCA'
    d: PositiveInt = 32
    level: Annotated[str, Choice('sigma', 't')] = 'sigma'
    sigma: Annotated[float, Range(0, MAX_SIGMA)] = 0.577
    t: Annotated[int, Range(0, TIMESTEPS - 1)] = 400
    schedule: Annotated[str, Choice(SCHEDULES)] = SCHEDULES[0]
    seed: Seed = 0


class Workbench:
    """Pictures, tokenizers, and perhaps a model, ready to be looked at. All that is slow is done once, when it is built.

    Args:
        run: A checkpoint, the work dir of a training, a tokenizer's file, or an encoder of another library; None leaves the
            tokenizers alone.
        images: Pictures to offer, and to fit the PCA to, as :class:`ldae.FeatureExtractor` takes them; None takes scikit-image's
            photographs, where it is installed, and some of the Fashion-MNIST subset.
        data_root: Of the images among which neighbours are looked for, and that samples start from.
        device: Of the model.
    """

    def __init__(self, run: Any = None, images: Any = None, data_root: Any = None, device: Any = None) -> None:
        source = Source([] if run is None else [run], images, FITTED, device)
        is_file = bool(source.files) and is_tokenizer(source.files[0])
        self.model: nn.Module | None = None if run is None or is_file else source.model
        self.data_root = None if data_root is None else str(data_root)
        if self.data_root is not None and self.model is None:
            raise ConfigError('--data-root is for neighbours and samples, which need a checkpoint: name one')
        self.ldae = self.model if isinstance(self.model, LDAE) else None
        self._moments: Moments | None = None
        own = source.tokenizers[0] if is_file else getattr(self.model, 'tokenizer', None)
        own = own if isinstance(own, BaseTokenizer) and own.is_fitted else None
        self.geometry = Geometry(EDGE, PATCH, 3, 1) if own is None else own.geometry
        self._is_prepared = own is not None and not is_file
        if self.geometry.in_channels not in PIXELS or self._is_prepared and Preprocess(self.model).reader.channels:
            raise ConfigError(f'{run} takes images of bands: the page is for grey and coloured pictures')
        pixels = self.model.data_preprocessor if self._is_prepared else normalised([], self.geometry)[1]
        self._preprocessor = deepcopy(pixels).cpu()
        shown, fitted = self._given(images) if images is not None else self._shipped()
        self.names, self.pictures = [*shown], [self.picture(bgr) for bgr in shown.values()]
        self.coders = self._bases(fitted)
        if own is not None:
            self.coders = {f'{kind_of(own)} of the {"file" if is_file else "checkpoint"}': own_coder(own)} | self.coders
        self._noises = {name: GaussianNoiser(name, TIMESTEPS) for name in SCHEDULES}

    def _given(self, images: Any) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
        some = some_of(images, FITTED)
        pictures = [reduced(bgr) for bgr, _ in zip(read_images(some), range(FITTED), strict=False)]
        are_files = isinstance(some, list) and all(isinstance(one, Path) for one in some)
        names = [one.name for one in some] if are_files else [f'picture {i + 1}' for i in range(len(pictures))]
        if len(set(names)) < len(names):  # of several folders
            names = ['/'.join(one.parts[-2:]) for one in some]
        if len(set(names)) < len(names):
            names = [f'{i + 1}: {name}' for i, name in enumerate(names)]
        return dict(list(zip(names, pictures, strict=True))[:OFFERED]), pictures

    def _shipped(self) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
        clothes = read_idx(SUBSET_ROOT, 'test', 'images')[:SHIPPED, :, :, None].expand(-1, -1, -1, 3).numpy()
        shown = {f'Fashion-MNIST {i + 1}': clothes[i] for i in range(4)}
        where = find_spec('skimage')
        files = [Path(where.origin).parent / 'data' / name for name in PHOTOGRAPHS] if where else []
        photographs = {file.stem: next(read_images(file)) for file in files if file.is_file()}
        is_colour = self.geometry.in_channels == 3 and photographs
        return (photographs | shown, [*photographs.values()]) if is_colour else (shown | photographs, [*clothes])

    def picture(self, bgr: np.ndarray) -> Picture:
        """A picture, uint8 BGR, as tokenizers take it."""
        if self._is_prepared:
            return Picture(bgr, prepared_images(self.model, [bgr]).cpu())
        return Picture(bgr, normalised([bgr], self.geometry)[0])

    def read(self, data: bytes) -> Picture:
        """The picture in the bytes of a file."""
        return self.picture(reduced(decode(data, 'the picture', MAX_PIXELS)))

    def chosen(self, number: int) -> Picture:
        """One of those that are offered, by its number."""
        check_range('picture', number, 0, len(self.pictures) - 1, kind=int)
        return self.pictures[number]

    def _bases(self, pictures: Sequence[np.ndarray]) -> dict[str, Coder]:
        """PCA of the pictures' patches, at the size that is shown and cut from the pictures as they are; DCT, random directions."""
        g = self.geometry
        pieces = [piece for one in pictures for piece in (one, *pieces_of(one, *height_width(g.img_size)))]
        pca = PatchPCATokenizer(g.img_size, g.patch_size, g.in_channels, 1, full_basis=True)
        pca.fit(self.picture(piece).inputs for piece in pieces)
        sizes = (g.img_size, g.patch_size, g.in_channels, g.patch_dim)
        rows = {
            'PCA': pca.full_basis,
            'DCT': DCTTokenizer(*sizes, latent_norm='none').basis,
            'random': RandomProjectionTokenizer(*sizes, latent_norm='none').basis,
        }
        variances = {name: ((one @ pca.full_basis.T) ** 2) @ pca.variances for name, one in rows.items()}
        return {name: basis_coder(one, variances[name], pca.mean, g) for name, one in rows.items()}

    def level(self, settings: Settings) -> tuple[float, float]:
        """gamma and sigma of the noise."""
        if settings.level == 'sigma':
            return 1.0, settings.sigma
        noiser = self._noises[settings.schedule]
        return float(noiser.gamma[settings.t]), float(noiser.sigma[settings.t])

    @torch.no_grad()
    def tokens(self, picture: Picture, settings: Settings) -> list[Panel]:
        """A picture as a tokenizer sees it, and noise on its latents beside noise on its pixels: no encoder is asked."""
        check_choice('tokenizer', settings.tokenizer, self.coders)
        coder, x = self.coders[settings.tokenizer], picture.inputs
        d, (gamma, sigma) = min(settings.d, coder.dims), self.level(settings)
        z = coder.encode(x, d)
        noise = torch.randn(x.numel(), generator=torch.Generator().manual_seed(settings.seed))
        on_latents = noise[: z.numel()].view(d, -1).T  # that of a dimension stays what it is while d changes
        again, noisy = coder.decode(z), coder.decode(gamma * z + sigma * on_latents)
        in_pixels = gamma * (x - x.mean()) + x.mean() + sigma * x.std() * noise.view_as(x)
        clean, kept = self._pixels(x), coder.kept(d)
        share = '' if kept is None else f', {100 * kept:.1f} % of the variance'
        amount = f'gamma = {gamma:.2f}, sigma = {sigma:.2f}'
        return [
            Panel('picture', tile(clean, 1)),
            Panel(f'latents: the first {min(d, 16)} of d = {d}', self._maps(z)),
            Panel(f'decoded from d = {d}: {psnr(self._pixels(again), clean).item():.1f} dB{share}', self._shown(again)),
            Panel('residual: decoded less picture (grey is 0)', self._residual(again, x)),
            Panel(f'noise in latents: {amount}', self._shown(noisy)),
            Panel(f'noise in pixels: {amount}', self._shown(in_pixels)),
        ]

    @torch.no_grad()
    def denoised(self, picture: Picture, settings: Settings) -> list[Panel]:
        """Noise taken out by the l-DAE in one step, with its own tokenizer, at its level nearest to the one that is set."""
        noiser, (gamma, sigma) = self.ldae.noiser, self.level(settings)
        t = int((noiser.sigma / noiser.gamma.clamp(min=1e-4) - sigma / max(gamma, 1e-4)).abs().argmin())
        inputs = picture.inputs.to(noiser.sigma.device)
        generator = torch.Generator(inputs.device).manual_seed(settings.seed)
        with evaluating(self.ldae):
            clean, noisy, denoised = (part.cpu() for part in self.ldae.denoise(inputs, t, generator))
        return [
            Panel(f"noisy input: the checkpoint's t = {t}, sigma = {float(noiser.sigma[t]):.2f}", self._shown(noisy)),
            Panel('denoised, in one step', self._shown(denoised)),
            Panel('residual: denoised less picture (grey is 0)', self._residual(denoised, clean)),
        ]

    def figure(self, name: str, picture: Picture, block: int) -> np.ndarray:
        """A figure of the encoder on a picture, ``attention`` or ``features``, as an array."""
        check_choice('figure', name, ('attention', 'features'))
        source = Source([self.model], [picture.bgr[..., ::-1]])
        return figure_to_array(draw(source, name, Options(blocks=[block])))

    @cached_property
    def _collection(self) -> tuple[list[np.ndarray], list[str], Tensor]:
        """Pictures among which neighbours are looked for, their classes or folders, and their features, of length 1."""
        has_data = getattr(self.model, '_config', None) and self.model._config.get('train_dataloader')
        source = Source([self.model], None if has_data else self.data_root, data_root=self.data_root)
        pictures, names = source.pictures(MANY)
        rows = many_features(source, pictures)
        return [tile(thumbnail(one)[None], 1) for one in pictures], names, nn.functional.normalize(rows, dim=1)

    def neighbours(self, picture: Picture) -> list[Panel]:
        """The images of ``data_root`` whose features are nearest to the picture's."""
        thumbnails, names, rows = self._collection
        query = many_features(Source([self.model]), [picture.bgr])
        near = (rows @ nn.functional.normalize(query, dim=1).T)[:, 0].topk(min(NEIGHBOURS, len(rows)))
        found = zip(near.values.tolist(), near.indices.tolist(), strict=True)
        return [Panel(f'{names[i]}: cosine {cosine:.3f}', thumbnails[i]) for cosine, i in found]

    def samples(self, seed: int, steps: int = 50, num: int = 4) -> list[Panel]:
        """Samples of the l-DAE: the i-th follows from the seed and i alone."""
        check_range('steps', steps, 1, 250, kind=int)
        drawn = ImageSampler(self.ldae, steps=steps, seed=seed)
        if not starts_from_noise(self.ldae, drawn.start):
            self._moments = self._moments or moments_of_data(self.ldae, drawn.start, self.data_root)
            drawn.moments = self._moments
        with evaluating(self.ldae):
            images = drawn(range(num))
        images = images if images.ndim == 4 else images[..., None].repeat(3, axis=3)
        return [Panel(f'sample {i + 1} of seed {seed}', image) for i, image in enumerate(images)]

    def _pixels(self, images: Tensor) -> Tensor:
        """Normalised images -> pixels in [0, 255]."""
        return to_pixels(images, self._preprocessor)

    def _shown(self, images: Tensor) -> np.ndarray:
        return tile(self._pixels(images), 1)

    def _residual(self, images: Tensor, clean: Tensor) -> np.ndarray:
        return tile((127.5 + (self._pixels(images) - self._pixels(clean)) / 2).clamp(0, 255), 1)

    def _maps(self, z: Tensor) -> np.ndarray:
        """The first 16 dimensions of latents (N, d), each as a map in grey: 0 is grey."""
        maps = z[:, :16].T.unflatten(1, self.geometry.grid).unsqueeze(1)
        shown = 127.5 * (1 + maps / maps.abs().amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6))
        return tile(shown, math.ceil(math.sqrt(len(maps))))


def basis_coder(rows: Tensor, variances: Tensor, mean: Tensor, geometry: Geometry) -> Coder:
    """Of orthonormal rows (D, D) of which the first d span the latent space, the variances (D,) of the patches along them and
    their mean (D,)."""
    sums, total = variances.cumsum(0).clamp(min=1e-8), variances.sum()

    def scale(d: int) -> float:
        return float((sums[d - 1] / d).sqrt())

    def encode(images: Tensor, d: int) -> Tensor:
        return (patchify(images, geometry.patch_size)[0] - mean) @ rows[:d].T / scale(d)

    def decode(z: Tensor) -> Tensor:
        d = z.shape[1]
        patches = (z * scale(d)) @ rows[:d] + mean
        return unpatchify(patches[None], geometry.patch_size, geometry.grid)

    return Coder(len(rows), encode, decode, lambda d: float(sums[d - 1] / total))


def own_coder(tokenizer: BaseTokenizer) -> Coder:
    """Of a tokenizer as it is: of its d dimensions the first are kept, the others are 0."""
    place = next(tokenizer.buffers(), next(tokenizer.parameters(), torch.zeros(()))).device

    def encode(images: Tensor, d: int) -> Tensor:
        return tokenizer.encode(images.to(place))[0, :, :d].cpu()

    def decode(z: Tensor) -> Tensor:
        filled = nn.functional.pad(z, (0, tokenizer.latent_dim - z.shape[1]))
        return tokenizer.decode(filled[None].to(place)).cpu()

    ratio = tokenizer.explained_variance_ratio.cpu().cumsum(0) if tokenizer.kept_variance is not None else None
    return Coder(tokenizer.latent_dim, encode, decode, lambda d: None if ratio is None else float(ratio[d - 1]))


def reduced(bgr: np.ndarray) -> np.ndarray:
    """A picture of at most :data:`LONGEST` pixels a side."""
    ratio = LONGEST / max(bgr.shape[:2])
    return bgr if ratio >= 1 else cv2.resize(bgr, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA)


def pieces_of(bgr: np.ndarray, high: int, wide: int) -> list[np.ndarray]:
    """Pieces of so many pixels, side by side, of a picture that is larger."""
    height, width = bgr.shape[:2]
    corners = product(range(0, height - high + 1, high), range(0, width - wide + 1, wide))
    return [bgr[top : top + high, left : left + wide] for top, left in corners]
