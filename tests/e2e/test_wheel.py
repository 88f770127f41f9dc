# SPDX-License-Identifier: Apache-2.0
"""Archive and wheel, built as for a release but from the tools that are installed, and used without the clone."""

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = "import setuptools.build_meta as backend; print(backend.build_{0}('{1}'))"


def build(kind: str, source: Path, out: Path) -> Path:
    """Call the build's backend, as ``python -m build`` does."""
    command = [sys.executable, '-c', BUILD.format(kind, out)]
    environment = dict(os.environ, PYTHONPATH='')
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return out / done.stdout.split()[-1]


@pytest.fixture(scope='module')
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a wheel puts into site-packages; the wheel is built from the archive, the archive from the files that git has."""
    folder = tmp_path_factory.mktemp('release')
    listed = subprocess.run(['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip('not a clone')
    for name in listed.stdout.split('\0')[:-1]:
        if (ROOT / name).is_file():
            (folder / 'clone' / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / 'clone' / name)
    with tarfile.open(build('sdist', folder / 'clone', folder)) as archive:
        archive.extractall(folder / 'archive', filter='data')
    (source,) = (folder / 'archive').iterdir()
    shutil.unpack_archive(build('wheel', source, folder), folder / 'site', 'zip')
    return folder / 'site'


def test_a_wheel_has_the_package_with_configs_and_data_and_nothing_else(unpacked: Path):
    names = {path.name.partition('-')[0] for path in unpacked.iterdir()}
    assert names == {'ldae'}
    for shipped in ('configs', 'tools', 'ldae/datasets/fashion_mnist_subset'):
        place = unpacked / (shipped if shipped.startswith('ldae') else f'ldae/.mim/{shipped}')
        expected, found = (
            {path.relative_to(root) for path in root.rglob('*') if path.is_file() and '__pycache__' not in path.parts}
            for root in (ROOT / shipped, place)
        )
        assert found == expected


def test_a_wheel_does_without_the_clone(unpacked: Path, tmp_path: Path):
    command = [sys.executable, '-c', 'from ldae.cli import main; main()', 'print-config', 'ldae::ldae/vit-b_pca.py']
    environment = dict(os.environ, PYTHONPATH=str(unpacked))
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "type='ldae.PatchPCATokenizer'" in done.stdout
