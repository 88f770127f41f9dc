# SPDX-License-Identifier: Apache-2.0
"""Networks whose features images are compared by: Inception, which makes FID, or any other."""

import hashlib
import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn

from ldae.apis import FeatureExtractor
from ldae.apis.encoders import CHECKPOINTS, TRANSFORMERS
from ldae.apis.models import MMPRETRAIN, TIMM
from ldae.evaluation.features import backbone_of
from ldae.utils import ConfigError
from ldae.utils.device import find_device
from ldae.utils.errors import short
from ldae.utils.models import hash_tensors
from ldae.utils.optional import import_extra

INCEPTION = 'Inception-v3'
INCEPTION_DIMS = 2048
INCEPTION_FILE = 'pt_inception-2015-12-05-6726825d.pth'
INCEPTION_URL = f'https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{INCEPTION_FILE}'
#: The same file is torch-fidelity's weights-inception-2015-12-05-6726825d.pth.
INCEPTION_SHA256 = '6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2'


@dataclass(frozen=True)
class Extractor:
    """A network and its name: ``run`` takes uint8 RGB images (H, W, 3) and gives rows (b, D), on any device.

    Attributes:
        weights: sha256 of the file of Inception, of the tensors of another network.
        dims: The first so many columns are features; None: all.
    """

    name: str
    weights: str
    run: Callable[[list[np.ndarray]], Tensor]
    dims: int | None = None

    @property
    def network(self) -> tuple[str, str]:
        """Its name and weights: Inception's with those of :data:`INCEPTION_SHA256`, and no other's, make FID."""
        return self.name, self.weights


def build_extractor(
    features: str | os.PathLike | nn.Module | Extractor | None = None,
    weights: str | os.PathLike | None = None,
    inception: str | os.PathLike | None = None,
    device: str | torch.device | None = None,
) -> Extractor:
    """The network that ``features`` names, or Inception.

    Args:
        features: What :func:`ldae.get_encoder` takes and has weights, or a config, or a model.
        weights: File of the weights of a model that is named; by default, what timm or mmpretrain downloads.
        inception: The file of Inception's weights, in place of ``features``.
        device: Where to compute.

    Raises:
        ConfigError: A file that is missing or another one, a library that isn't installed, or no network named at all.
    """
    if isinstance(features, Extractor):
        return features
    if features is None and inception is None:
        raise ConfigError(
            f'which features are compared? Name the weights of Inception with --inception FILE ({INCEPTION_URL}), which '
            'makes the distance FID, or another network with --features'
        )
    if weights is not None and features is None:
        raise ConfigError(
            f'--weights {weights} are those of --features, which names no network: Inception has its own file'
        )
    if features is None:
        return _inception(Path(inception).expanduser(), find_device(device))
    if inception is not None:
        raise ConfigError('--inception and --features name two networks: leave one of them out')
    if isinstance(features, nn.Module):
        name, extract = type(features).__name__, FeatureExtractor(features, weights, device)
    elif weights is not None:
        name, extract = str(features), FeatureExtractor(features, weights, device)
    elif str(features).startswith((TIMM, MMPRETRAIN, TRANSFORMERS)) or Path(features).is_dir():
        name, extract = str(features), _downloaded(str(features), device)
    elif Path(features).suffix in CHECKPOINTS:
        path = Path(features).expanduser()
        name, extract = f'{path.absolute().parent.name}/{path.name}', FeatureExtractor(None, path, device)
    else:
        raise ConfigError(
            f'--features {features}: without weights its features mean nothing: name a file with --weights'
        )
    digest = hash_tensors(hashlib.sha256(), extract.model)
    # What no tensor says of an l-DAE's features.
    of_ldae = getattr(backbone_of(extract.model), 'timestep', None), getattr(extract.model, 'transfer_noise', False)
    if any(one is not None and one is not False for one in of_ldae):
        digest.update(repr(of_ldae).encode())
    return Extractor(name, digest.hexdigest(), extract)


def _downloaded(name: str, device: str | torch.device | None) -> FeatureExtractor:
    try:
        return FeatureExtractor(name, device=device, pretrained=True)
    except ConfigError:
        raise
    except Exception as error:  # of whatever library fetches them
        raise ConfigError(
            f'--features {name}: its weights could not be had ({short(error)}): name a file of them with --weights'
        ) from error


def _inception(path: Path, device: str) -> Extractor:
    """torch-fidelity's network, given nothing but tensors: it opens files with pickle."""
    library = import_extra('torch_fidelity', 'generation', 'FID')
    if not path.is_file():
        raise ConfigError(f'--inception {path} is not a file: download {INCEPTION_URL}')
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != INCEPTION_SHA256:
        raise ConfigError(
            f'--inception {path} is not {INCEPTION_FILE}: its sha256 is {found[:8]}..., not {INCEPTION_SHA256[:8]}...: '
            f'download {INCEPTION_URL}'
        )
    state = torch.load(io.BytesIO(content), map_location='cpu', weights_only=True)
    with TemporaryDirectory() as folder:
        copy = Path(folder) / 'tensors.pth'
        torch.save({name: value for name, value in state.items() if isinstance(value, Tensor)}, copy)
        network = library.FeatureExtractorInceptionV3(
            'inception-v3-compat', ['2048', 'logits_unbiased'], feature_extractor_weights_path=str(copy)
        )
    network.to(device)

    @torch.no_grad()
    def run(images: list[np.ndarray]) -> Tensor:
        batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous().to(device)
        return torch.cat(network(batch), dim=1)

    return Extractor(INCEPTION, found, run, INCEPTION_DIMS)
