"""Compressed sensing of photographs: an unrolled network beside what it must beat.

    back-projection   the centred start of IDM: the measurement as an image
    TV                total variation, at the best of its weights by the truth, converged
    ddnm              DDNM of 100 calls on natural-gray: a prior of as many weights (2.3 million)
    idm               the network that ships for this ratio, 5 calls

Photographs are grey crops that no network here was trained on; the pattern is scrambled, a new one
for every photograph. Published PSNR of IDM (Set11, luminance, 115 million weights, the same kind of
pattern) is 32.92 dB at 10 %, and of the networks that it was compared with (patterns of blocks of
neighbours, mostly learnt) 30.3 to 31.7: other photographs and other patterns, not to be compared
with this table by more than their order.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from deepinv.physics import LinearPhysics
from torch import Tensor

import operators
import restore
from restore.metrics import psnr, ssim
from restore.total_variation import sweep
from restore.trained import weights
from restore.trained.idm import unrolled
from restore.trained.normal import Normal

NETWORKS = {"0.1": "cs10"}
METHODS = ("back-projection", "TV", "ddnm", "idm")

_WEIGHTS = (1e-2, 3e-3, 1e-3, 3e-4)
_GAP = 1e-2


@dataclass(frozen=True)
class Row:
    """One method at one ratio, means over photographs; see the module's docstring.

    Attributes:
        ratio: measurements per pixel.
        method: its name.
        calls: of a network.
        psnr: in dB.
        ssim: structural similarity.
        seconds: a photograph.
        images: PSNR of every photograph.
    """

    ratio: float
    method: str
    calls: int
    psnr: float
    ssim: float
    seconds: float
    images: Mapping[str, float]

    def cells(self) -> dict[str, str]:
        """Return what the table shows."""
        return {
            "ratio": f"{self.ratio:g}",
            "method": self.method,
            "calls": str(self.calls),
            "PSNR": f"{self.psnr:.2f}",
            "SSIM": f"{self.ssim:.3f}",
            "s": f"{self.seconds:.2f}",
        }


Method = Callable[[Tensor, LinearPhysics, Tensor], Tensor]


def run(
    ratios: Sequence[str],
    photographs: Mapping[str, Tensor],
    *,
    methods: Sequence[str] = METHODS,
) -> Iterator[Row]:
    """Measure and reconstruct.

    Args:
        ratios: words of `NETWORKS`.
        photographs: name -> `(1, 1, H, W)` in [0, 1].
        methods: any of those of the module's docstring.

    Yields:
        One `Row` a ratio and method.
    """
    for ratio in ratios:
        known: dict[str, tuple[int, Method]] = {
            "back-projection": (0, _back_projection(NETWORKS[ratio])),
            "TV": (0, _total_variation),
            "ddnm": (100, _solver("ddnm")),
            "idm": (5, _solver(f"idm-{NETWORKS[ratio]}")),
        }
        for name in methods:
            calls, method = known[name]
            yield _row(float(ratio), name, calls, method, photographs)


def _row(
    ratio: float, name: str, calls: int, method: Method, photographs: Mapping[str, Tensor]
) -> Row:
    scores, likeness, seconds = {}, [], 0.0
    for seed, (photograph, x) in enumerate(photographs.items()):
        spec = f"cs:ratio={ratio:g},kind=scrambled,seed={seed}"
        operator = operators.parse(spec, tuple(x.shape[1:]))
        assert isinstance(operator, LinearPhysics)
        y = operator.A(x)
        started = time.perf_counter()
        found = method(y, operator, x).clamp(0, 1)
        seconds += time.perf_counter() - started
        scores[photograph] = float(psnr(found, x))
        likeness.append(float(ssim(found, x)))
    mean = sum(scores.values()) / len(scores)
    return Row(
        ratio, name, calls, mean, sum(likeness) / len(likeness), seconds / len(scores), scores
    )


def _back_projection(network: str) -> Method:
    def method(y: Tensor, operator: LinearPhysics, truth: Tensor) -> Tensor:
        normal = Normal(operator, y, tuple(truth.shape[1:]))
        with torch.no_grad():
            return unrolled(weights.load(network)).seen(normal)

    return method


def _total_variation(y: Tensor, operator: LinearPhysics, truth: Tensor) -> Tensor:
    found = (minimum.x for minimum in sweep(y, operator, _WEIGHTS, tol=_GAP))
    return max(found, key=lambda x: float(psnr(x.clamp(0, 1), truth)))


def _solver(name: str) -> Method:
    def method(y: Tensor, operator: LinearPhysics, truth: Tensor) -> Tensor:
        return restore.solve(y, operator, "natural-gray", name, progress=False).mean

    return method
