"""Outputs that appear whole or not at all, and never over something the user wanted to keep."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path


def check_free(
    path: str | Path, *, source: str | Path | None = None, overwrite: bool = False
) -> None:
    """Refuse a path that is taken, that is the input itself, or whose folder does not exist.

    Raises:
        FileExistsError: the file exists and `overwrite` is False, or it is `source`.
        FileNotFoundError: the folder does not exist.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"folder '{path.parent}' does not exist; create it first.")
    if path.is_dir():
        raise FileExistsError(f"'{path}' is a folder; name a file.")
    if not path.exists():
        return
    if source is not None and Path(source).exists() and path.samefile(source):
        raise FileExistsError(f"'{path}' is the input itself; name another output.")
    if not overwrite:
        raise FileExistsError(f"'{path}' exists; name another output or pass --overwrite.")


@contextlib.contextmanager
def atomic(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A path in the same folder to write to, moved onto `path` when the block ends well.

    Whatever ends the block early, Ctrl-C included, leaves no file behind and an old one untouched.

    Raises:
        FileExistsError, FileNotFoundError: see `check_free`.
    """
    path = Path(path)
    check_free(path, overwrite=overwrite)
    partial = path.with_name(f".{path.stem}-{secrets.token_hex(4)}{path.suffix}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
