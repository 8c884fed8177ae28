"""A sampler of T steps as one network, whose gradient needs the memory of none of them.

The outer wiring of Chen et al., *Invertible Diffusion Models for Compressed Sensing*, TPAMI 2025;
see `restore.trained.idm` for the algorithm.
"""

from collections.abc import Iterator
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor, nn

from operators.validate import one_of
from priors import Denoiser
from restore.trained.injected import InjectedDRUNet
from restore.trained.normal import Normal
from restore.trained.reversible import Reversible

Keep = Literal["everything", "steps", "steps and blocks"]
Start = Literal["centred", "adjoint"]
Form = Literal["ddim", "oamp"]


class Noise(Protocol):
    """What estimates the noise of unit variance in `z = x + s n` at step `t`."""

    def __call__(self, z: Tensor, s: Tensor, normal: Normal, t: int) -> Tensor:
        """Estimate it, shape of `z`; `s` is one number, or one an image, `(B, 1, 1, 1)`."""
        ...


class Outside(nn.Module):
    """Any denoiser of ours, deepinv's, MONAI's or diffusers', tuned as it is.

    Args:
        denoiser: `D(x, sigma)`; adapters are in `priors`.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.denoiser = denoiser

    def forward(self, z: Tensor, s: Tensor, normal: Normal, t: int) -> Tensor:
        """Estimate the noise; see `Noise`."""
        return (z - self.denoiser(z, s.expand(len(z), *s.shape[1:])).to(z.dtype)) / s


class DDIM(nn.Module):
    """Step `t` of DDNM's sampler: denoise, fit the measurement, go to the next level.

    Args:
        t: 1 to T.
    """

    def __init__(self, t: int) -> None:
        super().__init__()
        self.t = t
        self.weight = nn.Parameter(torch.ones(()))  # of the data step, where it is not exact

    def forward(self, p: Tensor, noise: Noise, abar: Tensor, b: Tensor, normal: Normal) -> Tensor:
        """Walk from `p`, at level t, to level t - 1."""
        t = self.t
        a, s = abar[t].sqrt(), (1 - abar[t]).sqrt()
        eps = noise(p / a, s / a, normal, t).to(p.dtype)
        x_0 = (p - s * eps) / a
        x_0 = x_0 - (1.0 if normal.exact else self.weight) * (normal.gram(x_0) - b)
        return x_0 if t == 1 else abar[t - 1].sqrt() * x_0 + (1 - abar[t - 1]).sqrt() * eps


class OAMP(nn.Module):
    """Step `t` of orthogonal approximate message passing, for patterns that mix all pixels.

    Ma, Ping, *Orthogonal AMP*, IEEE Access 2017, arXiv:1602.06509; with a denoiser, Metzler,
    Maleki, Baraniuk, *From Denoising to Compressed Sensing*, 2016, arXiv:1406.4175.

    With a share r of orthonormal rows, what is wrong with `z = x_0 + (b - G x_0) / r` is white
    noise as long as `x_0` does not depend on that of the z before: the denoiser's estimate is moved
    on by g, learned, `1 / (1 - dD/dz)` in theory. How much noise there is, z itself tells:
    `s^2 = |b - G z|^2 / (1 - r)` a pixel, times a learned factor.

    Args:
        t: 1 to T.
        overshoot: g before training; it is nearer to 1 the more noise there is.
    """

    def __init__(self, t: int, overshoot: float) -> None:
        super().__init__()
        self.t = t
        self.overshoot = nn.Parameter(torch.tensor(overshoot))
        self.gain, self.level = nn.Parameter(torch.ones(())), nn.Parameter(torch.ones(()))

    def forward(self, z: Tensor, noise: Noise, abar: Tensor, b: Tensor, normal: Normal) -> Tensor:
        """Walk from `z` to the next one, or to the image.

        Raises:
            ValueError: rows are not orthonormal, or as many as pixels.
        """
        if not normal.exact or normal.share >= 1:
            raise ValueError(
                "form 'oamp' needs orthonormal rows, fewer than pixels, as cs has at ratios below "
                "1; use form 'ddim'."
            )
        wrong = (b - normal.gram(z)).square().mean((1, 2, 3), keepdim=True)
        s = self.level * (wrong / (1 - normal.share) + 1e-8).sqrt()
        x_0 = z - self.overshoot * s * noise(z, s, normal, self.t).to(z.dtype)
        return x_0 if self.t == 1 else x_0 + self.gain / normal.share * (b - normal.gram(x_0))


class Unrolled(nn.Module):
    """The whole sampler as one network; see `restore.trained.idm`.

    Args:
        noise: an `InjectedDRUNet` or `Outside`.
        steps: T.
        form: of the steps: "ddim", the paper's, or "oamp"; see `OAMP`.
        start: "adjoint", `A^T y`, or "centred", which unlike it has the right mean and is worth a
            step: `middle + g A^T (y - A middle)`, g learned, at first pixels per measurement.
        middle: of the images' range.
        consistent: end with one more fit of the measurement, where it is exact.
    """

    def __init__(
        self,
        noise: nn.Module,
        *,
        steps: int = 3,
        form: Form = "ddim",
        start: Start = "centred",
        middle: float = 0.5,
        consistent: bool = True,
    ) -> None:
        super().__init__()
        self.start, self.middle, self.consistent = start, middle, consistent
        self.form = form
        falling = range(steps, 0, -1)
        if form == "ddim":
            self.chain = Reversible([DDIM(t) for t in falling], shared=noise)
        else:
            # a second stream would bring old noise back: there is next to none of it, and steps
            # can hardly be run backwards, so that their two images are kept at each
            walk = [OAMP(t, 1.0 if t == 1 else 1.02 + 0.03 * (steps - t)) for t in falling]
            self.chain = Reversible(walk, shared=noise, mix=1e-3, anchor=1)
        self.raw_a = nn.Parameter(torch.zeros(steps))
        self.log_gain = nn.Parameter(torch.zeros(()))
        self.c_in, self.c_out = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))

    @classmethod
    def of(
        cls,
        channels: int,
        widths: tuple[int, int, int, int],
        blocks: int,
        steps: int = 3,
        **options: Any,
    ) -> "Unrolled":
        """Build one around an `InjectedDRUNet`; `options` are those of the class."""
        return cls(InjectedDRUNet(channels, widths, blocks, steps), steps=steps, **options)

    @property
    def config(self) -> dict[str, Any]:
        """What `of` builds the same network from, as plain values."""
        assert isinstance(self.noise, InjectedDRUNet)
        names = ("form", "start", "middle", "consistent")
        own = {name: getattr(self, name) for name in names}
        return {**self.noise.config, **own}

    @property
    def noise(self) -> nn.Module:
        """The noise network."""
        assert self.chain.shared is not None
        return self.chain.shared

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.raw_a.device

    @property
    def steps(self) -> int:
        """T, evaluations of the noise network."""
        return len(self.chain.bodies)

    @property
    def abar(self) -> Tensor:
        """`1, abar_1, ..., abar_T`, each in (0, 1)."""
        return torch.cat([self.raw_a.new_ones(1), self.raw_a.sigmoid().cumprod(0)])

    def forward(self, normal: Normal) -> Tensor:
        """Reconstruct `(B, C, H, W)` from what was measured."""
        p, h = self.chain(*self.first(normal), self.abar, normal.b, normal)
        return self.last(p, h, normal)

    @torch.no_grad()
    def walk(self, normal: Normal) -> Iterator[Tensor]:
        """Reconstruct, giving what every step would have as result."""
        for p, h in self.chain.walk(*self.first(normal), self.abar, normal.b, normal):
            yield self.last(p, h, normal)

    def begin(self, prior: Denoiser) -> None:
        """Start from the weights of a prior (see `InjectedDRUNet.take`) or of another of these.

        Raises:
            ValueError: of another layout.
        """
        other = getattr(prior, "network", None)
        if isinstance(other, Unrolled):
            if {**other.config, "start": 0} != {**self.config, "start": 0}:
                raise ValueError(f"'{prior.card.name}' has another layout; start from another.")
            self.load_state_dict(other.state_dict())
        else:
            assert isinstance(self.noise, InjectedDRUNet)
            self.noise.take(prior)

    def first(self, normal: Normal) -> tuple[Tensor, Tensor]:
        """Return the two streams of the start."""
        p = self.seen(normal)
        if self.form == "ddim":
            p = self.abar[-1].sqrt() * p
        return p, self.c_in * p

    def seen(self, normal: Normal) -> Tensor:
        """Return the image that the measurement shows by itself."""
        if self.start == "adjoint":
            return normal.b
        middle = torch.full_like(normal.b, self.middle)
        gain = self.log_gain.exp() / normal.share
        return middle + gain * (normal.b - normal.gram(middle))

    def last(self, p: Tensor, h: Tensor, normal: Normal) -> Tensor:
        """Return the image of two streams."""
        x = p + self.c_out * h
        return x - (normal.gram(x) - normal.b) if self.consistent and normal.exact else x

    def keep(self, what: Keep) -> None:
        """Choose what stays in memory for the gradient.

        Args:
            what: "everything", as automatic differentiation does, the fastest; "steps", nothing of
                the sampler's steps, each is computed once more; "steps and blocks", nothing of the
                network's stages either.

        Raises:
            ValueError: another word.
        """
        one_of("keep", what, get_args(Keep))
        for module in self.modules():
            if isinstance(module, Reversible):
                outer = module is self.chain
                module.everything = what == "everything" or (what == "steps" and not outer)
