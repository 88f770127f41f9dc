# SPDX-License-Identifier: Apache-2.0
"""torchrun, without its report of a crash where the processes have already said in one line what is wrong; and signals
that ask the job to stop are passed on, with time to save."""

import os
import signal
import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import get_args_parser
from torch.distributed.run import main as torchrun

from ldae.utils.error_lines import EXIT_STATUS
from ldae.utils.signals import INTERRUPTED_STATUS, PARENT_VARIABLE, STOPPED_STATUS, end_with_named_parent

#: Options of torchrun, where it has them: which signals reach the processes, and seconds that they have from then on.
OPTIONS = {'--signals-to-handle': 'SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1', '--shutdown-timeout': '600'}
# What the processes have run_explained themselves.
KNOWN = (EXIT_STATUS, 3, STOPPED_STATUS, INTERRUPTED_STATUS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run torchrun with its own options."""
    end_with_named_parent()
    known = get_args_parser()._option_string_actions
    extra = [f'{name}={value}' for name, value in OPTIONS.items() if name in known]
    os.environ[PARENT_VARIABLE] = str(os.getpid())
    try:
        torchrun([*extra, *(sys.argv[1:] if argv is None else argv)])
    except SignalException as error:
        return INTERRUPTED_STATUS if error.sigval == signal.SIGINT else STOPPED_STATUS
    except ChildFailedError as error:
        status = error.get_first_failure()[1].exitcode
        if status not in KNOWN:
            raise
        return status
    return 0


if __name__ == '__main__':
    sys.exit(main())
