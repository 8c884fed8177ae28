"""The noise that a restoration diffusion starts from: random, zero, or one found once for all.

A deterministic sampler turns its start into its result. With the posterior Gaussian and the start
overwhelmed by noise, that map is `x_0 = E[x_0 | y] + C^(1/2) eps`, C the posterior covariance: zero
gives the mean, which is blurred and has half the square error of a random start.

A start is found for one network, one sampler, one number of steps and one size of images. It keeps
the norm with which it was found. On smaller images it is cropped, on larger ones repeated: white
noise has no seams, but what the start does to a texture then comes back with its period.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from operators.files import write_tensors
from priors.shelf import Shelf
from restore.problem import Problem, stream

if TYPE_CHECKING:
    from restore.trained.pair_prior import PairPrior
    from restore.trained.restorer import Restorer

log = logging.getLogger("restore")

_SHELF = Shelf(Path(), "boundary", "start", "`restore boundary`")
_NOT_CONSTANTS = ("boundary", "noise_scale")


@dataclass(frozen=True)
class Boundary:
    """A start `eps`, shared by all images, and what it was found for.

    Attributes:
        noise: `(C, H, W)` float32, never standardised.
        about: plain values; "solver", "constants", "weights" and "sha256" are checked on use.
    """

    noise: Tensor
    about: Mapping[str, Any] = field(default_factory=dict)

    def noise_for(self, image_shape: tuple[int, ...]) -> Tensor:
        """Return the noise for images `(C, H, W)`: cropped, or repeated with a warning.

        Raises:
            ValueError: another number of channels or of dimensions.
        """
        found, wanted = tuple(self.noise.shape), tuple(image_shape)
        if len(found) != len(wanted) or found[0] != wanted[0]:
            raise ValueError(
                f"this start was found for images of shape {found}, the images here are {wanted}; "
                "search again with `restore boundary`."
            )
        times = [-(-n // m) for n, m in zip(wanted, found, strict=True)]
        if max(times) > 1:
            log.warning(
                "a start found at %s is repeated over %s; look for a texture of that period.",
                "x".join(map(str, found[1:])),
                "x".join(map(str, wanted[1:])),
            )
        return self.noise.repeat(times)[tuple(slice(n) for n in wanted)]

    def check(self, solver: "Restorer", prior: "PairPrior") -> None:
        """Refuse to start anything but what this start was found for.

        Raises:
            ValueError: another solver, other constants or other weights.
        """
        asked = {"solver": solver.name, "constants": constants(solver), "sha256": prior.card.sha256}
        for name, value in asked.items():
            if self.about.get(name, value) != value:
                raise ValueError(
                    f"this start was found for {name} {self.about[name]}, found {value}; search "
                    "again with `restore boundary`."
                )

    def save(self, path: str | Path) -> None:
        """Write one safetensors file, atomically, replacing an old one."""
        about = {"kind": _SHELF.kind, **self.about}
        write_tensors(Path(path), {"noise": self.noise}, {"restore": json.dumps(about)})

    @classmethod
    def load(cls, path: str | Path) -> "Boundary":
        """Read a file of `save`.

        Raises:
            ValueError: a file that is damaged or of another kind, or an unknown word.
            FileNotFoundError: no such file.
        """
        if Path(path).suffix != ".safetensors":
            raise ValueError(
                f"the start is '{path}', expected random, zero or a .safetensors file of "
                "`restore boundary`; correct it."
            )
        if not Path(path).is_file():
            raise FileNotFoundError(f"no start at '{path}'; make one with `restore boundary`.")
        about, tensors = _SHELF.read(Path(path))
        return cls(tensors["noise"], {k: v for k, v in about.items() if k != "kind"})


def constants(solver: "Restorer") -> dict[str, Any]:
    """A solver's constants but for its start, as plain values."""
    told = {k: v for k, v in asdict(solver).items() if k not in _NOT_CONSTANTS}
    return json.loads(json.dumps(told))


def seeded_noise(seed: int, image_shape: tuple[int, ...]) -> Tensor:
    """Return the start `(C, *spatial)` of the first sample of a seed, float32."""
    return torch.randn(image_shape, generator=stream(seed, 0), dtype=torch.float64).float()


def start_noise(solver: "Restorer", problem: Problem) -> Tensor:
    """Noise `(N, C, *spatial)` that a solver starts from, of unit variance unless scaled.

    Raises:
        ValueError: a given start for a solver that draws noise on its way, or one that was found
            for something else.
    """
    if solver.boundary == "random":
        return solver.noise_scale * problem.noise()
    refuse_random(solver)
    if solver.boundary == "zero":
        return torch.zeros(problem.shape).to(problem.y)
    found = Boundary.load(solver.boundary)
    found.check(solver, problem.prior)  # pyright: ignore[reportArgumentType]
    noise = found.noise_for(problem.shape[1:]).to(problem.y)
    return solver.noise_scale * noise.expand(problem.shape)


def refuse_random(solver: "Restorer") -> None:
    """Refuse a solver whose start does not decide its result.

    Raises:
        ValueError: it draws noise on its way.
    """
    if solver.walker.random:
        remedy = "set eta to 0" if hasattr(solver, "eta") else "choose a deterministic sampler"
        raise ValueError(
            f"solver '{solver.name}' draws noise on its way and no start decides its result; "
            f"{remedy}."
        )
