# SPDX-License-Identifier: Apache-2.0
"""Which lines of a run the console shows; its log file has them all."""

import logging

from mmengine.logging import MMLogger
from mmengine.runner import Runner

from ldae.utils import ConfigError

#: How messages of mmengine begin that say nothing of this run, or, in hundreds of lines, what the log file keeps.
ROUTINE = (
    f'\n{"-" * 60}\nSystem environment:',
    'Config:\n',
    'Hooks will be executed',
    'Distributed training is not used',
    'Exp name:',
    'Checkpoints will be saved to',
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
)


class BriefRunner(Runner):
    """mmengine's Runner, whose ``log_level`` is the console's: 'DEBUG' shows what the log file has, 'INFO' leaves
    :data:`ROUTINE` out. The file has at least what 'INFO' lets through."""

    def build_logger(self, log_level: int | str = 'INFO', log_file: str | None = None, **kwargs) -> MMLogger:
        level = logging._checkLevel(log_level)
        logger = super().build_logger(min(level, logging.INFO), log_file, **kwargs)
        for handler in console_handlers(logger):
            handler.setLevel(max(handler.level, level))
            if level > logging.DEBUG:
                handler.addFilter(is_of_this_run)
        return logger

    def resume(self, filename: str, *args, **kwargs) -> None:
        try:
            super().resume(filename, *args, **kwargs)
        except (LookupError, TypeError, ValueError, AttributeError, AssertionError, ArithmeticError) as error:
            if isinstance(error, ConfigError):
                raise
            why = ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
            raise ConfigError(
                f'{filename} cannot be resumed from ({why}): use the one before it, or begin anew with its weights, '
                f'--cfg-options load_from={filename}'
            ) from error


def console_handlers(logger: logging.Logger) -> list[logging.Handler]:
    """Those that write to standard output or error."""
    return [handler for handler in logger.handlers if not isinstance(handler, logging.FileHandler)]


def is_of_this_run(record: logging.LogRecord) -> bool:
    """Whether a message is more than :data:`ROUTINE`."""
    return not record.getMessage().startswith(ROUTINE)


def is_no_step(record: logging.LogRecord) -> bool:
    """Whether a message is none of those that come with each step or epoch, in whose place a progress bar stands."""
    return not record.getMessage().startswith(('Epoch(train)', 'Iter(train)', 'Saving checkpoint at'))
