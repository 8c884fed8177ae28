"""From measurement to image: `restore.solve(y, operator, prior="natural", solver="...")`.

The face of the toolkit. Everything here is loaded on first use, so that `import restore` and
`restore --help` cost milliseconds; type checkers read `__init__.pyi`.
"""

import importlib.util
from pathlib import Path

import lazy_loader as lazy

__version__ = "0.1.0"


def _guard_siblings() -> None:
    """Refuse to run with a stranger in a sibling's place.

    The four rooms are ordinary top-level packages, so a user's own `operators.py` next to a
    script would shadow ours and fail later in some confusing way.

    Raises:
        ImportError: names the file that shadows one of our packages.
    """
    home = Path(__file__).resolve().parent.parent
    for name in ("operators", "priors", "medical"):
        spec = importlib.util.find_spec(name)
        found = Path(spec.origin).resolve() if spec and spec.origin else None
        if found != home / name / "__init__.py":
            raise ImportError(
                f"'{found or name}' stands where restore's own package '{name}' was expected "
                f"({home / name}); rename that file or run from another folder."
            )


_guard_siblings()

__getattr__, __dir__, __all__ = lazy.attach_stub(__name__, __file__)
