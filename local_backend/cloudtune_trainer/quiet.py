"""Keeps what transformers prints off the terminal of an embedding program, and wrong advice out of logs."""

from __future__ import annotations

import contextlib
import threading
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterator


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Suppress progress bars and warnings of transformers and peft on standard error in this block."""
    from transformers.utils import logging

    drawn = logging.is_progress_bar_enabled()
    level = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            ignore_warnings()
            yield
    finally:
        logging.set_verbosity(level)
        if drawn:
            logging.enable_progress_bar()


def ignore_warnings() -> None:
    """Ignore warnings of peft's use of transformers, which a user cannot act on."""
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)


@contextlib.contextmanager
def without_load_report() -> Iterator[None]:
    """Suppress transformers' report of missing weights in this block, which advises to train the model first."""
    from transformers import modeling_utils

    own = threading.get_ident()

    def is_other(record: logging.LogRecord) -> bool:
        return record.thread != own or "LOAD REPORT" not in record.getMessage()

    modeling_utils.logger.addFilter(is_other)
    try:
        yield
    finally:
        modeling_utils.logger.removeFilter(is_other)
