# SPDX-License-Identifier: Apache-2.0
"""Metadata stands in setup.cfg; this adds what it can't say: configs and tools travel in the wheel as ``ldae/.mim``."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SHIPPED = ('configs', 'tools', 'model-index.yml')


class BuildPyWithMim(build_py):
    """An editable install reads the clone's own folders, so nothing is copied there."""

    def _mim_files(self) -> list[tuple[Path, Path]]:
        if getattr(self, 'editable_mode', False):
            return []
        target = Path(self.build_lib) / 'ldae' / '.mim'
        files = (path for name in SHIPPED for path in (Path(name), *sorted(Path(name).rglob('*'))))
        return [(path, target / path) for path in files if path.is_file() and '__pycache__' not in path.parts]

    def run(self) -> None:
        super().run()
        for source, target in self._mim_files():
            self.mkpath(str(target.parent))
            self.copy_file(str(source), str(target))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return super().get_outputs(include_bytecode) + [str(target) for _, target in self._mim_files()]


setup(cmdclass={'build_py': BuildPyWithMim})
