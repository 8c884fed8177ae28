"""A folder of weights that ship: named, hashed, described, and refused when damaged.

Every file is safetensors and says under the key "restore" how to rebuild its network; the folder's
`cards.toml` says what a person must know (licence, data, measured quality) and the file's hash.
"""

import hashlib
import json
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from operators.words import nearest
from priors.denoiser import Card

_IN_CARD = {"channels", "licence", "training_data", "sha256", "description"}


@dataclass(frozen=True)
class Shelf:
    """The weights of one kind.

    Attributes:
        folder: where they and `cards.toml` lie.
        kind: what their files call themselves.
        noun: what messages call one of them, for example "prior".
        writer: what writes such files, for messages.
    """

    folder: Path
    kind: str
    noun: str
    writer: str

    @cached_property
    def cards(self) -> dict[str, Card]:
        """Name -> card of everything on the shelf."""
        with (self.folder / "cards.toml").open("rb") as file:
            return {name: _card(name, entry) for name, entry in tomllib.load(file).items()}

    def find(self, name: str | Path) -> tuple[Path, Card | None]:
        """Return the file of a name, with its card; or a user's own file, without.

        Raises:
            ValueError: unknown name, or a shipped file whose hash is not that of its card.
            FileNotFoundError: no such file.
        """
        if (card := self.cards.get(str(name))) is not None:
            path = self.folder / f"{name}.safetensors"
            if not path.exists():
                raise FileNotFoundError(
                    f"weights of {self.noun} '{name}' are missing; install again."
                )
            if (found := sha256(path)) != card.sha256:
                raise ValueError(
                    f"weights of {self.noun} '{name}' have sha256 {found[:12]}..., expected "
                    f"{card.sha256[:12]}...; the file was changed or cut short: install again."
                )
            return path, card
        path = Path(name)
        if path.suffix != ".safetensors":
            hint = nearest(str(name), list(self.cards)) if self.cards else "none ship."
            raise ValueError(f"unknown {self.noun} '{name}' (and not a .safetensors file); {hint}")
        if not path.is_file():
            raise FileNotFoundError(
                f"no weights at '{path}'; give a safetensors file or a known name."
            )
        return path, None

    def read(self, path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return what a file says about itself, and its tensors in float32.

        Raises:
            ValueError: a file that is damaged or of another kind.
        """
        try:
            with safe_open(path, framework="pt") as file:
                text = (file.metadata() or {}).get("restore", "null")
                tensors = {name: file.get_tensor(name).float() for name in file.keys()}
        except SafetensorError as error:
            raise ValueError(
                f"'{path.name}' is not a readable safetensors file ({error}); copy it again."
            ) from None
        about = None
        with suppress(json.JSONDecodeError):
            about = json.loads(text)
        if not isinstance(about, dict) or about.get("kind") != self.kind:
            raise ValueError(
                f"'{path.name}' does not say how to rebuild a {self.noun}; expected a file written "
                f"by {self.writer}."
            )
        return about, tensors

    @contextmanager
    def rebuilding(self, path: Path) -> Iterator[None]:
        """Refuse, when what stands inside fails, a file whose tensors and description disagree.

        Raises:
            ValueError: they do.
        """
        try:
            yield
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise ValueError(
                f"the tensors of '{path.name}' do not fit the network that it describes; copy it "
                "again."
            ) from error


def sha256(path: Path) -> str:
    """Hexadecimal hash of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _card(name: str, entry: dict[str, Any]) -> Card:
    levels = {"sigma_range": tuple(entry["sigma_range"])} if "sigma_range" in entry else {}
    return Card(
        name=name,
        spatial_dims=2,
        extra={k: v for k, v in entry.items() if k not in _IN_CARD | {"sigma_range"}},
        **levels,
        **{k: entry[k] for k in _IN_CARD},
    )
