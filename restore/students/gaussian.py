"""The trajectories of a power-law Gaussian, known in closed form between any two noise levels.

The shipped priors are this Gaussian at high noise, so that their probability-flow ODE needs no
network there and no steps. Coefficient by coefficient of mean m and variance c,

    x_u - m = sqrt((c + u^2) / (c + t^2)) (x_t - m),

and pure noise z, taken as `x_t / t` at a level t without bound, arrives as `m + sqrt(c + u^2) z`.
"""

import torch
from torch import Tensor

from priors.bases import Cosine
from priors.denoiser import per_image
from priors.powerlaw import PowerLaw


def gaussian_start(law: PowerLaw, z: Tensor, level: float) -> Tensor:
    """Carry standard normal noise `(B, C, *spatial)` from infinite noise down to `level`."""
    variances = law.variances(tuple(z.shape[1:])).to(z)
    gain = (variances + level**2).sqrt()
    return _scaled(law, z, gain, centred=True)


def gaussian_flow(law: PowerLaw, x: Tensor, start: float | Tensor, end: float | Tensor) -> Tensor:
    """Carry `x` exactly along the probability-flow ODE of a power law.

    Coefficient by coefficient of variance c, `x_u - m = sqrt((c + u^2) / (c + t^2)) (x_t - m)`.
    """
    t, u = per_image(start, x), per_image(end, x)
    variances = law.variances(tuple(x.shape[1:])).to(x)
    return _scaled(law, x, ((variances + u.square()) / (variances + t.square())).sqrt())


def gaussian_average(law: PowerLaw, x: Tensor, start: Tensor, end: Tensor) -> Tensor:
    """`G` of a power law: the clean image averaged over the jump of `gaussian_flow`.

    With `a = c + t^2` and `b = c + u^2` the factor on a coefficient, `(sqrt(b / a) - u / t) /
    (1 - u / t)`, is `c (t + u) / (sqrt(a) (t sqrt(b) + u sqrt(a)))`, which suffers no cancellation.
    """
    c = law.variances(tuple(x.shape[1:])).to(x)
    a, b = (c + start.square()).sqrt(), (c + end.square()).sqrt()
    return _scaled(law, x, c * (start + end) / (a * (start * b + end * a)))


def _scaled(law: PowerLaw, x: Tensor, gain: Tensor, *, centred: bool = False) -> Tensor:
    """Scale the coefficients of `x` about the mean of the law; `centred` has none to remove."""
    colours = torch.tensor(law.colours, dtype=x.dtype, device=x.device)
    mean = torch.tensor(law.mean, dtype=x.dtype, device=x.device)
    mean = mean.reshape(-1, *[1] * (x.ndim - 2))
    components = torch.einsum("kc,bc...->bk...", colours, x)
    if not centred:
        components = components - mean
    moved = mean + Cosine().synthesise(gain * Cosine().analyse(components))
    return torch.einsum("kc,bk...->bc...", colours, moved)
