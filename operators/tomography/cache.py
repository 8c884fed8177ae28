"""Matrices kept on disk between runs: whole or absent, bounded in total, never trusted blindly."""

import hashlib
import logging
import os
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from ..files import write_tensors

LIMIT = 4 * 2**30  # bytes of all files together

log = logging.getLogger("restore")


def directory() -> Path:
    """The user's folder for what can be computed again: `XDG_CACHE_HOME`, else `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "restore-imaging" / "matrices"


def remember(
    description: str,
    build: Callable[[], dict[str, Tensor]],
    *,
    enabled: bool = True,
    limit: int = LIMIT,
) -> dict[str, Tensor]:
    """Tensors from disk, or built and kept there.

    A file that is damaged, or of something else, is built again and replaced. When all files
    exceed the limit, those used longest ago are removed. A folder that cannot be written to costs
    time, nothing else.

    Args:
        description: everything that the tensors depend on.
        build: computes them.
        enabled: False builds them, without a look at the disk.
        limit: bytes of all files together.

    Returns:
        The tensors, on the processor.
    """
    if not enabled:
        return build()
    key = hashlib.sha256(description.encode()).hexdigest()
    file = directory() / f"{key}.safetensors"
    if (found := _read(file, key)) is not None:
        return found
    tensors = build()
    if sum(t.nbytes for t in tensors.values()) <= limit:
        _write(file, key, tensors, limit)
    return tensors


def _read(file: Path, key: str) -> dict[str, Tensor] | None:
    try:
        with safe_open(file, "pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}
            about = stored.metadata() or {}
        if about.get("key") != key or about.get("crc32") != _checksum(tensors):
            return None
    except Exception as error:  # whatever is wrong with a cache, its contents can be built again
        log.debug("no cached matrix in %s: %s", file, error)
        return None
    with suppress(OSError):  # a folder that may only be read
        os.utime(file)  # used just now
    return tensors


def _write(file: Path, key: str, tensors: Mapping[str, Tensor], limit: int) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(file, tensors, {"key": key, "crc32": _checksum(tensors)})
        _evict(file, limit)
    except OSError as error:
        log.debug("matrix not cached in %s: %s", file, error)


def _evict(newest: Path, limit: int) -> None:
    """Remove the files used longest ago until the rest fits, the newest last of all."""
    files = [(f.stat(), f) for f in newest.parent.glob("*.safetensors") if f != newest]
    total = newest.stat().st_size
    for stat, file in sorted(files, key=lambda entry: -entry[0].st_mtime):
        total += stat.st_size
        if total > limit:
            file.unlink(missing_ok=True)


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(name.encode(), total)
        total = zlib.crc32(tensors[name].contiguous().numpy().data, total)
    return str(total)
