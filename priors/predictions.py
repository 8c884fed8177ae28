"""What a diffusion network predicts, turned into the clean image and back.

With `x_t = alpha x_0 + sigma eps` every prediction is an exact linear function of `x_0` and `x_t`:

    kind     value              from                                  x_0 =
    eps      eps                DDPM, arXiv:2006.11239                (x_t - sigma eps) / alpha
    score    -eps / sigma       score SDE, arXiv:2011.13456           (x_t + sigma^2 score) / alpha
    v        alpha eps          progressive distillation,             (alpha x_t - sigma v)
               - sigma x_0        arXiv:2202.00512                      / (alpha^2 + sigma^2)
    flow     eps - x_0          rectified flow, arXiv:2209.03003      (x_t - sigma flow)
                                                                        / (alpha + sigma)
    x0       x_0                                                      value

The denominators of `v` and `flow` are 1 for the schedules they come from (VP, rectified flow);
with them the conversions hold for every schedule.
"""

from difflib import get_close_matches

from torch import Tensor

from priors.denoiser import per_image

KINDS = ("eps", "score", "v", "x0", "flow")


def to_x0(
    kind: str, value: Tensor, x_t: Tensor, alpha: float | Tensor, sigma: float | Tensor
) -> Tensor:
    """Clean image that a prediction stands for.

    Args:
        kind: one of `KINDS`.
        value: the prediction, shape of `x_t`.
        x_t: noisy images `(B, C, *spatial)`, `alpha x_0 + sigma eps`.
        alpha: factor on the clean image, zero for `v`, `x0` and `flow` only; one number or one per
            image `(B,)`.
        sigma: noise standard deviation, likewise, positive.

    Returns:
        `x_0`, shape and units of `x_t` (of the network's own range).

    Raises:
        ValueError: for an unknown `kind`, and for `eps` and `score` where alpha is 0.
    """
    check_kind(kind)
    alpha, sigma = per_image(alpha, x_t), per_image(sigma, x_t)
    if kind in ("eps", "score") and bool((alpha == 0).any()):
        raise ValueError(
            f"prediction '{kind}' says nothing of the image where alpha is 0, in pure noise; stop "
            "before, or take a network that predicts v or x0."
        )
    if kind == "eps":
        return (x_t - sigma * value) / alpha
    if kind == "score":
        return (x_t + sigma**2 * value) / alpha
    if kind == "v":
        return (alpha * x_t - sigma * value) / (alpha**2 + sigma**2)
    if kind == "flow":
        return (x_t - sigma * value) / (alpha + sigma)
    return value


def from_x0(
    kind: str, x0: Tensor, x_t: Tensor, alpha: float | Tensor, sigma: float | Tensor
) -> Tensor:
    """Prediction of the given kind that stands for a clean image: the inverse of `to_x0`.

    Args:
        kind: one of `KINDS`.
        x0: clean images, shape of `x_t`.
        x_t: noisy images `(B, C, *spatial)`.
        alpha: factor on the clean image; one number or one per image `(B,)`.
        sigma: noise standard deviation, positive (for `x0` it may be zero).

    Returns:
        The prediction, shape of `x_t`.

    Raises:
        ValueError: for an unknown `kind`.
    """
    check_kind(kind)
    if kind == "x0":
        return x0
    alpha, sigma = per_image(alpha, x_t), per_image(sigma, x_t)
    eps = (x_t - alpha * x0) / sigma
    if kind == "score":
        return -eps / sigma
    if kind == "v":
        return alpha * eps - sigma * x0
    if kind == "flow":
        return eps - x0
    return eps


def check_kind(kind: str) -> None:
    """Refuse a word that is not in `KINDS`.

    Raises:
        ValueError: naming the nearest valid word.
    """
    if kind not in KINDS:
        nearest = get_close_matches(str(kind), KINDS, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"unknown prediction kind '{kind}', expected one of {', '.join(KINDS)}; "
            f"did you mean '{nearest}'?"
        )
