# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
from mmpretrain.models.utils import SelfSupDataPreprocessor
from torch.utils.data import Dataset

from ldae.datasets import IDXDataset
from ldae.models import PatchPCATokenizer
from ldae.models.tokenizers.base import load_tokenizer_state, save_tokenizer
from ldae.models.tokenizers.fit import fit_tokenizer, sample_indices
from ldae.utils import ConfigError


class Samples(Dataset):
    """One sample at a time, as mmpretrain's data sets give them; records which were read."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images, self.read = images, []

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict:
        self.read.append(index)
        return dict(inputs=self.images[index])


def tokenizer() -> PatchPCATokenizer:
    return PatchPCATokenizer(28, 7, 1, 8)


def test_single_samples_and_whole_batches_give_the_same_result():
    dataset = IDXDataset(split='test', indices=range(300), with_label=False)
    preprocessor = SelfSupDataPreprocessor(mean=[73.0], std=[90.0])
    fits = [tokenizer() for _ in range(2)]
    fit_tokenizer(fits[0], dataset, preprocessor, batch_size=64)
    fit_tokenizer(fits[1], Samples(dataset.images), preprocessor, batch_size=50)
    torch.testing.assert_close(fits[0].basis, fits[1].basis, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(fits[0].variances, fits[1].variances, atol=1e-4, rtol=1e-4)


class Augmented(Samples):
    """Adds noise to an image as it is read."""

    def __getitem__(self, index: int) -> dict:
        return dict(inputs=super().__getitem__(index)['inputs'] + torch.randn(1, 28, 28))


@pytest.mark.parametrize('kind', ['one by one', 'in whole batches'])
def test_augmented_images_give_one_result_whatever_batches_workers_and_processes(kind, monkeypatch):
    images = IDXDataset(split='test', indices=96, with_label=False, crop_scale=(0.2, 1.0))
    dataset = images if kind == 'in whole batches' else Augmented(images.images.float() / 64)
    monkeypatch.setattr('ldae.models.tokenizers.fit._fit', lambda tokenizer, batches, _: read.extend(batches))
    seen = []
    for world, batch_size, num_workers in ((1, 32, 0), (1, 7, 2), (2, 16, 0)):
        monkeypatch.setattr('mmengine.dist.get_world_size', lambda world=world: world)
        ranks = []
        for rank in range(world):
            read = []
            monkeypatch.setattr('mmengine.dist.get_rank', lambda rank=rank: rank)
            fit_tokenizer(tokenizer(), dataset, batch_size=batch_size, num_workers=num_workers)
            ranks.append(torch.cat(read))
        seen.append(torch.stack(ranks, dim=1).flatten(0, 1))
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])


def test_a_sample_is_without_replacement_seeded_and_of_the_asked_size():
    first, second, other = (
        sample_indices(100, 30, 0).tolist(),
        sample_indices(100, 30, 0).tolist(),
        sample_indices(100, 30, 1).tolist(),
    )
    assert first == second != other
    assert len(set(first)) == 30
    assert (
        sorted(sample_indices(100, None, 0).tolist())
        == sorted(sample_indices(100, 1000, 0).tolist())
        == list(range(100))
    )


def test_ranks_read_disjoint_images_that_together_are_the_sample(monkeypatch):
    monkeypatch.setattr('mmengine.dist.get_world_size', lambda: 2)
    monkeypatch.setattr('ldae.models.tokenizers.streaming_covariance.dist.broadcast', lambda tensor: None)
    read = []
    for rank in range(2):
        monkeypatch.setattr('mmengine.dist.get_rank', lambda rank=rank: rank)
        dataset = Samples(torch.randn(50, 1, 28, 28))
        fit_tokenizer(tokenizer(), dataset, num_images=31)
        read.append(dataset.read)
    assert len(read[0] + read[1]) == 31
    assert sorted(read[0] + read[1]) == sorted(sample_indices(50, 31, 0).tolist())


def test_fitting_touches_no_global_random_stream():
    torch.manual_seed(0)
    state = torch.get_rng_state()
    fit_tokenizer(tokenizer(), Samples(torch.randn(20, 1, 28, 28, generator=torch.Generator().manual_seed(0))))
    assert torch.equal(torch.get_rng_state(), state)


def test_more_processes_than_images_is_one_clear_line(monkeypatch):
    monkeypatch.setattr('mmengine.dist.get_world_size', lambda: 8)
    with pytest.raises(ConfigError, match='3 images are fewer than the 8 processes'):
        sample_indices(3, None, 0)


def test_an_interrupted_save_leaves_the_old_file(tmp_path, monkeypatch):
    path, fitted = tmp_path / 'pca.pth', tokenizer()
    fitted.fit([torch.randn(50, 1, 28, 28)])
    save_tokenizer(fitted, path)
    before = path.read_bytes()

    def fail(*args):
        raise OSError('No space left on device')

    monkeypatch.setattr('torch.save', fail)
    with pytest.raises(OSError, match='No space'):
        save_tokenizer(fitted, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_with_code_in_it_is_refused_and_the_code_not_run(tmp_path):
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / 'ran'), 'w'))

    torch.save(dict(state_dict=Attack()), tmp_path / 'evil.pth')
    with pytest.raises(ConfigError, match='is not a tokenizer file'):
        load_tokenizer_state(tmp_path / 'evil.pth')
    assert not (tmp_path / 'ran').exists()


def test_a_flipped_bit_of_a_tokenizer_file_is_one_line(tmp_path):
    tokenizer = PatchPCATokenizer(img_size=8, patch_size=4, latent_dim=4)
    save_tokenizer(tokenizer, tmp_path / 'a.pth')
    tensor = max(tokenizer.state_dict().values(), key=torch.numel)
    content = bytearray((tmp_path / 'a.pth').read_bytes())
    content[content.index(tensor.numpy().tobytes()) + 2] ^= 1
    (tmp_path / 'a.pth').write_bytes(content)
    with pytest.raises(ConfigError, match='a.pth is damaged: .* is not as it was written'):
        load_tokenizer_state(tmp_path / 'a.pth')
