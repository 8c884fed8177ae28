"""Silence around libraries whose warnings and log lines quote headers, and so patients."""

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator

TALKATIVE = ("pydicom", "pylibjpeg", "openjpeg", "libjpeg", "PIL", "highdicom")

_lock = threading.Lock()
_depth = 0
_undo = contextlib.ExitStack()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No warnings, no logging of DICOM libraries; may be nested and entered by several threads."""
    global _depth, _undo
    with _lock:
        if _depth == 0:
            _undo = _silenced()
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                _undo.close()


def _silenced() -> contextlib.ExitStack:
    undo = contextlib.ExitStack()
    undo.enter_context(warnings.catch_warnings())
    warnings.simplefilter("ignore")
    for logger in map(logging.getLogger, TALKATIVE):
        undo.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL + 1)  # of the logger and of all below it
    return undo
