# SPDX-License-Identifier: Apache-2.0
"""``python -m ldae``: the ``ldae`` command."""

import sys

from ldae.cli import main

if __name__ == '__main__':
    sys.exit(main())
