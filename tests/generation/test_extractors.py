# SPDX-License-Identifier: Apache-2.0
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from made_inception import PIXELS, write_inception
from torch_fidelity import FeatureExtractorInceptionV3

from ldae.generation import FrechetMetric, build_extractor, extractors, frechet_distance
from ldae.utils import ConfigError


@pytest.fixture(scope='module')
def inception_file(tmp_path_factory) -> tuple[Path, str]:
    path = tmp_path_factory.mktemp('inception') / 'made.pth'
    return path, write_inception(path)


@pytest.fixture
def _known(inception_file, monkeypatch):
    monkeypatch.setattr(extractors, 'INCEPTION_SHA256', inception_file[1])
    monkeypatch.setattr(FeatureExtractorInceptionV3, 'INPUT_IMAGE_SIZE', PIXELS)


@pytest.fixture
def images() -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (3, 20, 24, 3), dtype=np.uint8))


@pytest.mark.usefixtures('_known')
def test_inception_gives_torch_fidelitys_features_and_logits(inception_file, images):
    extractor = build_extractor(inception=inception_file[0])
    rows = extractor.run(images)
    layers = ['2048', 'logits_unbiased']
    network = FeatureExtractorInceptionV3('x', layers, feature_extractor_weights_path=str(inception_file[0]))
    features, logits = network(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))
    assert torch.equal(rows[:, : extractor.dims], features)
    assert torch.equal(rows[:, extractor.dims :], logits)
    assert features.std() > 0
    assert extractor.network == (extractors.INCEPTION, extractors.INCEPTION_SHA256)


@pytest.mark.usefixtures('_known')
def test_torch_fidelity_is_handed_another_file_with_nothing_but_tensors(inception_file, monkeypatch):
    opened = []

    def load(file, *args, **options):
        opened.append((file, options.get('weights_only')))
        return read(file, *args, **options)

    read = torch.load
    monkeypatch.setattr(torch, 'load', load)
    build_extractor(inception=inception_file[0])
    (ours, ours_safe), (theirs, theirs_safe) = opened
    assert ours_safe is True
    assert theirs_safe is False
    assert str(inception_file[0]) not in (str(ours), str(theirs))
    assert not Path(theirs).exists()


class Runs:
    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize('known', [False, True])
def test_a_pickle_is_not_run_whatever_its_hash(known, tmp_path, monkeypatch):
    path = tmp_path / 'inception.pth'
    torch.save(dict(x=Runs(tmp_path / 'ran')), path)
    if known:
        monkeypatch.setattr(extractors, 'INCEPTION_SHA256', extractors.hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(pickle.UnpicklingError if known else ConfigError):
        build_extractor(inception=path)
    assert not (tmp_path / 'ran').exists()


def test_another_file_is_one_line_that_says_where_the_right_one_is(inception_file, tmp_path):
    with pytest.raises(
        ConfigError, match=r'is not pt_inception-2015-12-05-6726825d\.pth: its sha256 .*: download https'
    ):
        build_extractor(inception=inception_file[0])
    with pytest.raises(ConfigError, match='nowhere.pth is not a file: download https'):
        build_extractor(inception=tmp_path / 'nowhere.pth')


def test_the_pinned_hash_is_the_one_that_the_file_names():
    assert extractors.INCEPTION_SHA256.startswith(extractors.INCEPTION_FILE.rpartition('-')[2].removesuffix('.pth'))
    assert len(extractors.INCEPTION_SHA256) == 64
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    assert URL_INCEPTION_V3.endswith(extractors.INCEPTION_FILE.removeprefix('pt_'))


@pytest.mark.parametrize(
    ('call', 'user'),
    [
        (lambda: build_extractor(inception='x.pth'), 'FID'),
        (lambda: frechet_distance('nowhere', 'nowhere'), 'the Fréchet distance'),
        (lambda: FrechetMetric(), 'FrechetMetric'),
    ],
)
def test_a_missing_library_is_one_line_before_anything_is_read(call, user, monkeypatch):
    for name in [name for name in sys.modules if name.partition('.')[0] == 'torch_fidelity']:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, 'torch_fidelity', None)
    with pytest.raises(
        ConfigError, match=f'{user} needs the library torch_fidelity, which is not installed: pip install'
    ):
        call()


@pytest.fixture(scope='module')
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp('weights') / 'resnet.pth'
    torch.save(timm.create_model('test_resnet.r160_in1k', num_classes=0).state_dict(), path)
    return path


def test_a_model_of_timm_is_named_with_a_file(weights, images):
    extractor = build_extractor('timm::test_resnet.r160_in1k', weights=weights)
    assert extractor.name == 'timm::test_resnet.r160_in1k'
    assert extractor.run(images).shape[0] == 3
    again = build_extractor('timm::test_resnet.r160_in1k', weights=weights)
    assert again.weights == extractor.weights
    other = timm.create_model('test_resnet.r160_in1k', num_classes=0)
    assert build_extractor(other).weights != extractor.weights


def test_features_at_another_time_step_are_another_networks(small_ldae, monkeypatch):
    first = build_extractor(small_ldae).weights
    assert build_extractor(small_ldae).weights == first
    monkeypatch.setattr(small_ldae.backbone, 'timestep', small_ldae.backbone.timestep + 1)
    assert build_extractor(small_ldae).weights != first
    monkeypatch.undo()
    monkeypatch.setattr(small_ldae, 'transfer_noise', True)
    assert build_extractor(small_ldae).weights != first


def test_weights_that_cannot_be_had_are_one_line(monkeypatch):
    def fail(*args, **options):
        raise OSError('no network\nat all')

    monkeypatch.setattr('ldae.apis.models._timm_model', fail)
    with pytest.raises(ConfigError, match=r'its weights could not be had \(OSError: no network at all\): name a file'):
        build_extractor('timm::test_resnet.r160_in1k')


@pytest.mark.parametrize(
    ('options', 'said'),
    [
        (dict(), 'which features are compared'),
        (dict(features='timm::x', inception='y'), 'name two networks'),
        (dict(inception='x', weights='y'), '--weights y are those of --features'),
        (dict(features='vit-b_pca'), 'without weights its features mean nothing'),
        (dict(features='nowhere.pth'), "'nowhere.pth' does not exist"),
    ],
)
def test_what_names_no_network_is_one_line(options, said):
    with pytest.raises(ConfigError, match=said):
        build_extractor(**options)
