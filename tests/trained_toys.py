"""Networks trained on pairs whose answer is known: each pixel Gaussian given the degraded image."""

import torch
from torch import nn

from priors import Card
from priors.denoiser import per_image
from restore.trained.pair_prior import PairPrior, Trained


class GaussianPairs(nn.Module):
    """`x_0 | y_0 ~ N(mean, variance)` pixel by pixel; `residual` is exact."""

    def __init__(self, mean=0.5, variance=0.01, around="degraded"):
        super().__init__()
        self.mean, self.variance, self.around = mean, variance, around

    def forward(self, z, y_0, s):
        shift = y_0 if self.around == "degraded" else torch.full_like(y_0, 0.5)
        gain = self.variance / (self.variance + per_image(s, z) ** 2)
        u = self.mean - shift
        return u + gain * (z - u)


def gaussian_prior(mean=0.5, variance=0.01, around="degraded", operator="denoise", noise=0.1):
    trained = Trained(
        operator=operator,
        noise=(noise, noise),
        patch=16,
        levels=(1e-4, 1e4),
        spread=variance**0.5,
        family="resshift",
        around=around,
    )
    card = Card(name="gaussian-pairs", channels=1, spatial_dims=2)
    return PairPrior(card, GaussianPairs(mean, variance, around), trained)


def measured(count=1, side=16, noise=0.1, value=0.7):
    """Measurements `y_0 = value` everywhere, float64, and their operator."""
    import operators

    physics = operators.parse("denoise", (1, side, side), noise=noise)
    return torch.full((count, 1, side, side), value, dtype=torch.float64), physics
