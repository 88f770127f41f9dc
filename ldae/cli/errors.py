# SPDX-License-Identifier: Apache-2.0
"""What goes wrong on a user's side, in one line each."""

import errno
import os
import pickle
import re
import sys
from collections.abc import Callable, Sequence

from ldae.utils import ConfigError

EXIT_STATUS = 2
TRACEBACK_VARIABLE = 'LDAE_TRACEBACK'
# What a DataLoader worker or a registry raised arrives as the text of a traceback, with the error in its last line.
RAISED = re.compile(r'^(?:[\w.]+\.)?ConfigError: (.*)$', re.MULTILINE)


def explained(main: Callable[[Sequence[str] | None], int | None], argv: Sequence[str] | None = None) -> int:
    """Call ``main(argv)``; print a known error as ``error: <one line>`` and return 2, let the others through.

    With ``LDAE_TRACEBACK=1`` every error keeps its traceback.
    """
    try:
        return main(argv) or 0
    except Exception as error:
        line = one_line(error)
        if line is None or os.environ.get(TRACEBACK_VARIABLE, '0') not in ('', '0'):
            raise
        if os.environ.get('RANK', '0') == '0' or not _on_all_ranks(error):
            print(f'error: {line}', file=sys.stderr, flush=True)
        return EXIT_STATUS


def _on_all_ranks(error: Exception) -> bool:
    # A worker of a data loader meets a file on one rank only; anything else is met by all, and said once.
    return 'DataLoader worker' not in str(error)


def one_line(error: BaseException) -> str | None:
    """The line that explains an error to a user, or None if it isn't one of theirs."""
    text = str(error)
    if isinstance(error, ConfigError) or 'ConfigError: ' in text:
        raised = RAISED.findall(text)
        return raised[-1] if raised else ' '.join(text.split())
    if isinstance(error, pickle.UnpicklingError):
        return (
            'the checkpoint holds pickled Python objects, which loading could run as code; if you trust where it comes'
            ' from, set TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1'
        )
    image = re.search(r'failed to load image: (.*)', text)
    if image:
        return f'{image[1].strip()} is not a readable image: remove or replace it'
    return _one_line_of_os(error, text)


def _one_line_of_os(error: BaseException, text: str) -> str | None:
    if 'No space left' in text or (isinstance(error, OSError) and error.errno == errno.ENOSPC):
        return 'no space left on the disk: free some, or choose another --work-dir'
    if isinstance(error, FileNotFoundError):
        return f'{error.filename or " ".join(text.split())} does not exist'
    if isinstance(error, PermissionError):
        return f'{error.filename or " ".join(text.split())} may not be accessed'
    if 'PytorchStreamReader' in text or 'unexpected EOF' in text:
        return f'the checkpoint is damaged or truncated ({text.splitlines()[0]}): use the one before it'
    return None
