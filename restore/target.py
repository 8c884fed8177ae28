"""What `restore check` examines: a specification, or a function of the user's own."""

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType
from typing import cast

from deepinv.physics import Physics

import operators

Make = Callable[[tuple[int, ...]], Physics]


def maker(target: str) -> Make:
    """Builder of an operator from what the user wrote.

    Args:
        target: a specification, or `file.py:function` or `package.module:function` of a function
            that takes an image shape and returns a deepinv physics.

    Raises:
        ValueError: no such function, or its file cannot be imported.
        FileNotFoundError: no such file.
    """
    place, _, name = target.rpartition(":")
    if target.endswith(".py") or (place.endswith(".py") and not name.isidentifier()):
        raise ValueError(f"'{target}' names no function; give file.py:function.")
    if not _is_code(place, name):
        return lambda shape: operators.parse(target, shape)
    module = _module(place)
    found = getattr(module, name, None)
    if not callable(found):
        near = get_close_matches(name, [n for n in dir(module) if callable(getattr(module, n))], 1)
        hint = f"did you mean '{near[0]}'?" if near else "write one: function(image_shape)."
        raise ValueError(f"'{place}' has no function '{name}'; {hint}")
    return cast(Make, found)


def _is_code(place: str, name: str) -> bool:
    if not name.isidentifier() or place in operators.available():
        return False
    if place.endswith(".py"):
        return True
    dotted = all(part.isidentifier() for part in place.split("."))
    if not dotted:
        return False
    with _here():
        return "." in place or importlib.util.find_spec(place) is not None


def _module(place: str) -> ModuleType:
    path = Path(place)
    if place.endswith(".py") and not path.is_file():
        raise FileNotFoundError(f"'{place}' is not a file; give file.py:function.")
    try:
        if not place.endswith(".py"):
            with _here():
                return importlib.import_module(place)
        with _here(path.parent):
            return _load(path)
    except Exception as error:  # the user's file may raise anything
        words = " ".join(str(error).split())
        raise ValueError(
            f"'{place}' cannot be imported: {type(error).__name__}: {words}."
        ) from error


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@contextmanager
def _here(folder: Path | None = None) -> Iterator[None]:
    """Import from a folder, the current one by default, as `python` itself does."""
    entry = str((folder or Path.cwd()).resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)
