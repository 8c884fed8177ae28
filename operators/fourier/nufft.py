"""Fourier sums at points off the grid, their adjoint, and the product of both.

FINUFFT does the sums (Barnett, Magland and af Klinteberg, SIAM Journal on Scientific Computing 41,
2019), on the processor, wherever the tensors are.
"""

import math
from types import ModuleType
from typing import Any, cast

import torch
from torch import Tensor

ACCURACY = {torch.complex64: 1e-6, torch.complex128: 1e-12}


class Nufft(torch.autograd.Function):
    """Images `(..., *size)` to samples `(..., S)`, or the adjoint; each is the other's gradient."""

    @staticmethod
    def forward(z: Tensor, points: Tensor, size: tuple[int, ...], adjoint: bool) -> Tensor:
        """The sums of FINUFFT."""
        shape = (len(points),) if adjoint else size
        batch = z.detach().cpu().reshape(-1, *shape).contiguous().numpy()
        radians = (2 * math.pi * points).to(z.real.dtype).T.contiguous().numpy()
        options: dict[str, Any] = {"eps": ACCURACY[z.dtype], "isign": 1 if adjoint else -1}
        if adjoint:
            options["n_modes"] = size
        transform = getattr(finufft(), f"nufft{len(size)}d{1 if adjoint else 2}")
        sums = transform(*radians, batch, **options)
        out = torch.from_numpy(sums).reshape(*z.shape[: z.ndim - len(shape)], *sums.shape[1:])
        return out.to(z) / math.sqrt(math.prod(size))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep what the other direction needs."""
        _, ctx.points, ctx.size, ctx.adjoint = inputs

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The other direction."""
        return Nufft.apply(gradient, ctx.points, ctx.size, not ctx.adjoint), None, None, None


def gram_kernel(points: Tensor, size: tuple[int, ...]) -> Tensor:
    """Transfer function of `F_k^H F_k`, a convolution without wrap-around on twice the grid.

    Fessler, Lee, Olafsson, Shi and Noll, Toeplitz-based iterative image reconstruction for MRI,
    IEEE Transactions on Signal Processing 53, 2005.

    Returns:
        Real, float64, twice as large as `size` along every axis.
    """
    double = tuple(2 * n for n in size)
    ones = torch.ones(len(points), dtype=torch.complex128)
    spread = cast(Tensor, Nufft.apply(ones, points, double, True))
    for axis in range(len(size)):
        spread.select(axis, 0).zero_()  # a distance of n does not occur; 0 makes the rest Hermitian
    transfer = torch.fft.fftn(torch.fft.ifftshift(spread)).real
    return transfer * (2 ** len(size) / math.prod(size)) ** 0.5


def convolved(z: Tensor, kernel: Tensor) -> Tensor:
    """`F_k^H F_k z` of complex images `(..., *size)`, see `gram_kernel`."""
    axes = tuple(range(-kernel.ndim, 0))
    product = kernel * torch.fft.fftn(z, s=kernel.shape, dim=axes)
    return torch.fft.ifftn(product, dim=axes)[(..., *(slice(n // 2) for n in kernel.shape))]


def finufft() -> ModuleType:
    """The package.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import finufft as package
    except ImportError as error:
        raise ValueError(
            "non-Cartesian MRI needs the package finufft, which is not installed; run "
            "`pip install finufft`, or measure on the grid with mri."
        ) from error
    return package
