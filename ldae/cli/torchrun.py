# SPDX-License-Identifier: Apache-2.0
"""torchrun, without its report of a crash where the processes have already said in one line what is wrong."""

import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main as torchrun

from ldae.cli.errors import EXIT_STATUS


def main(argv: Sequence[str] | None = None) -> int:
    """Run torchrun with its own options."""
    try:
        torchrun(argv)
    except ChildFailedError as error:
        if error.get_first_failure()[1].exitcode != EXIT_STATUS:
            raise
        return EXIT_STATUS
    return 0


if __name__ == '__main__':
    sys.exit(main())
