# SPDX-License-Identifier: Apache-2.0
"""Tokenizers in files of their own."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ldae.utils.checkpoints import check_archive
from ldae.utils.errors import ConfigError
from ldae.utils.files import atomic_save

from .base import BaseTokenizer


def save_tokenizer(tokenizer: BaseTokenizer, path: str | os.PathLike) -> None:
    """Write the tokenizer's state to ``path``, whole or not at all."""
    state = {name: value.cpu() for name, value in tokenizer.state_dict().items()}
    atomic_save(dict(tokenizer=type(tokenizer).__name__, state_dict=state), path)


def load_tokenizer_state(
    path: str | os.PathLike, kind: str | None = None, remedy: str = 'tools/fit_pca.py'
) -> dict[str, Tensor]:
    """State dict of a file written by :func:`save_tokenizer`. Raises ConfigError if the file is missing or not of that
    kind.

    Args:
        kind: Class name of the tokenizer that the file must hold; None takes any.
        remedy: The command that makes such a file, for errors.
    """
    if not Path(path).is_file():
        raise ConfigError(f'tokenizer file {path} does not exist: make it with {remedy}')
    check_archive(path)
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
        found, state = str(content['tokenizer']), dict(content['state_dict'])
        if not all(isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()):
            raise TypeError
    except Exception as error:
        raise ConfigError(f'{path} is not a tokenizer file ({type(error).__name__}): make one with {remedy}') from error
    if kind not in (None, found):
        raise ConfigError(f'{path} holds a {found}, the config asks for a {kind}: make one with {remedy}')
    return state


def load_tokenizer(tokenizer: BaseTokenizer, state: Mapping[str, Tensor], path: str | os.PathLike) -> None:
    """Fill a tokenizer from the state of its file; raise ConfigError, in one line, if it doesn't fit."""
    try:
        tokenizer.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise ConfigError(f'{path} does not fit {type(tokenizer).__name__}: {reason}') from error
