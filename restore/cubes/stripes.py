"""Stripes of a sensor of one line: found from the cube itself, as gains or as offsets.

Every detector element scans one line of one band, so that stripes of different bands have nothing
to do with one another, while the scene has: what a line of one band shows beyond the subspace of
spectra is noise, or its stripe. The part of a stripe inside the subspace, R of C dimensions, stays.

    gains     y = g x,  g = <y, P y> / |P y|^2 along the line
    offsets   y = x + b,  b = mean of y - P y along the line

P projects pixels onto the subspace, which is found from what varies along the lines, as stripes do
not; both are refined on the cube corrected so far. Which of the two it is tells what is left after
each. Lines of one value are dead.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_ROUNDS = 3
_SHARE = 8  # bands for one direction of the subspace, at least: what lies inside it stays striped
_FEWEST = 2  # lines in a band that must be alive


@dataclass(frozen=True)
class Stripes:
    """What was found.

    Attributes:
        gains: `(C, 1, W)` or `(C, H, 1)`; ones where stripes are offsets.
        offsets: the same shape; zeros where stripes are gains.
        alive: whether a line holds anything, the same shape.
        left: std of what stays beyond the subspace of spectra, noise and what was not found.
    """

    gains: Tensor
    offsets: Tensor
    alive: Tensor
    left: float

    @property
    def kind(self) -> str:
        """The word "gains" or "offsets"."""
        return "offsets" if bool(self.offsets.any()) else "gains"

    def sentence(self) -> str:
        """What to tell."""
        dead, strength = int((~self.alive).sum()), self.gains.std(correction=0)
        if self.kind == "offsets":
            strength = self.offsets.std(correction=0)
        return (
            f"Stripes: {self.kind} of std {float(strength):.3g}, {dead} of {self.alive.numel()} "
            "lines dead."
        )


def find(u: Tensor, seen: Tensor, direction: str) -> Stripes:
    """Find the stripes of a cube.

    Args:
        u: `(C, H, W)` in units where no value is 0 for a zero signal, at most about 1.
        seen: where there is a value, the same shape.
        direction: "vertical" or "horizontal" lines.

    Raises:
        ValueError: a band in which hardly a line is alive.
    """
    if direction == "horizontal":
        turned = find(u.transpose(1, 2), seen.transpose(1, 2), "vertical")
        parts = turned.gains, turned.offsets, turned.alive
        gains, offsets, alive = (part.transpose(1, 2) for part in parts)
        return Stripes(gains, offsets, alive, turned.left)
    low = torch.where(seen, u, torch.inf).amin(1, keepdim=True)
    high = torch.where(seen, u, -torch.inf).amax(1, keepdim=True)
    alive = high > low
    if int(alive.sum(2).min()) < _FEWEST:
        raise ValueError(
            "a band has hardly a line that is alive; check --direction, or leave the band out."
        )
    whole = _across(torch.where(seen, u, 0), (seen & alive).expand_as(u))
    ones, zeros = torch.ones_like(low), torch.zeros_like(low)
    P = _projected(whole)
    if _explained(whole - P, ones.expand_as(P)) > _explained(whole - P, P):
        offsets, left = _offsets(whole)
        return Stripes(ones, torch.where(alive, offsets, 0), alive, left)
    gains, left = _gains(whole)
    return Stripes(torch.where(alive, gains, 1), zeros, alive, left)


def _explained(residual: Tensor, shape: Tensor) -> float:
    """Power of the residual that lines of a given shape account for, each with its own factor."""
    match = (residual * shape).sum(1).square() / shape.square().sum(1).clamp_min(1e-12)
    return float(match.sum())


def _gains(u: Tensor) -> tuple[Tensor, float]:
    g = torch.ones_like(u[:, :1])
    for _ in range(_ROUNDS):
        P = _projected(u / g)
        g = (u * P).sum(1, keepdim=True) / P.square().sum(1, keepdim=True).clamp_min(1e-12)
        g = (g / g.median(2, keepdim=True).values).clamp(0.1, 10)
    return g, _left(u / g)


def _offsets(u: Tensor) -> tuple[Tensor, float]:
    b = torch.zeros_like(u[:, :1])
    for _ in range(_ROUNDS):
        b = (u - _projected(u - b)).mean(1, keepdim=True)
        b = b - b.median(2, keepdim=True).values
    return b, _left(u - b)


def _left(even: Tensor) -> float:
    return float((even - _projected(even)).square().mean().sqrt())


def _projected(u: Tensor) -> Tensor:
    """Nearest pixels in the subspace.

    Its directions are those in which pixels vary along the lines. Of these it has those in which
    lines differ by more than stripes do, which differ alike in all directions once bands are
    scaled by how much one line differs from the next.
    """
    rough = u.mean(1).diff(dim=1).std(1)[:, None, None]
    width = rough.clamp_min(1e-3 * float(rough.max()) + 1e-12)
    v = u / width
    along = (v - v.mean(1, keepdim=True)).flatten(1).double()
    _, directions = torch.linalg.eigh(along @ along.T)
    apart = (directions.T @ v.mean(1).double()).var(1)
    stands_out = int((apart > apart.median() * (1 + 3 * (2 / u.shape[2]) ** 0.5)).sum())
    kept = apart.topk(min(stands_out, len(u) // _SHARE)).indices
    basis = directions[:, kept].to(v)
    mean = v.mean((1, 2))[:, None]
    near = mean + basis @ (basis.T @ (v.flatten(1) - mean))
    return near.reshape(u.shape) * width


def _across(u: Tensor, seen: Tensor) -> Tensor:
    """Fill what is missing from the nearest values to the left and right, linearly."""
    width = u.shape[2]
    at = torch.arange(width)
    left = torch.where(seen, at, -1).cummax(2).values
    right = torch.where(seen, at, width).flip(2).cummin(2).values.flip(2)
    none = (left < 0) & (right >= width)  # a row without values: the band's mean
    left_ok, right_ok = left >= 0, right < width
    a = u.gather(2, torch.where(left_ok, left, right).clamp(0, width - 1))
    b = u.gather(2, torch.where(right_ok, right, left).clamp(0, width - 1))
    span = (right - left).clamp_min(1)
    share = torch.where(left_ok & right_ok, (at - left) / span, 0).clamp(0, 1)
    filled = torch.lerp(a, b, share.to(u))
    mean = u.sum((1, 2)) / seen.sum((1, 2)).clamp_min(1)
    return torch.where(none, mean[:, None, None].expand_as(u), filled)
