"""Blur: every channel convolved with one kernel."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from deepinv.physics import LinearPhysics
from torch import Tensor

from .convolution import CircularBlur, PaddedBlur, gathering_matrix, padded
from .kernels import (
    Taps,
    box_taps,
    disk_kernel,
    file_kernel,
    gaussian_taps,
    motion_kernel,
    normalised,
    outer,
    separate,
)
from .noise import noise_model
from .separable import Along, Separable
from .validate import image_size, one_of

Kernel = Literal["gaussian", "box", "disk", "motion"]
Boundary = Literal["circular", "valid", "reflect", "replicate", "zero"]


def blur(
    image_shape: Sequence[int],
    *,
    kernel: Kernel | Tensor = "gaussian",
    sigma: float = 2.0,
    sigma_z: float | None = None,
    width: int = 5,
    radius: float = 3.0,
    length: float = 15.0,
    angle: float = 0.0,
    file: Path | str | None = None,
    boundary: Boundary = "circular",
    noise: float = 0.0,
) -> LinearPhysics:
    """Out-of-focus, shaken or otherwise blurred: `y = k * x`.

    A true convolution. The kernel's centre is at index `K // 2` of every axis.

    Args:
        image_shape: `(C, H, W)` or `(C, D, H, W)` of one clean image.
        kernel: "gaussian"; "box", the mean of a square or cube; "disk", defocus of a round
            aperture, or a ball; "motion"; or an array of two or three axes, which is scaled to sum
            to one.
        sigma: standard deviation of the Gaussian, pixels.
        sigma_z: that along the axis `D` of a volume, the same when None.
        width: of the box, pixels.
        radius: of the disk, pixels.
        length: length of the motion, pixels.
        angle: direction of the motion, degrees counter-clockwise from the horizontal.
        file: picture or `.npy` array with the kernel; replaces `kernel`.
        boundary: "circular" wraps around; "valid" gives `(H - K + 1, W - L + 1)`, as in a real
            photograph; "reflect" mirrors about the last pixel, "replicate" repeats it, "zero" has
            nothing there.
        noise: standard deviation of Gaussian noise, in units of the image.

    Returns:
        Linear operator on `(B, C, H, W)` or `(B, C, D, H, W)`.

    Raises:
        ValueError: unknown word, bad number, or a kernel larger than the image.
        FileNotFoundError: there is no such kernel file.
    """
    shape = image_size(image_shape, dims=(2, 3))
    size = shape[1:]
    one_of("boundary", boundary, get_args(Boundary))
    found = _kernel(
        len(size),
        kernel=kernel,
        sigma=sigma,
        sigma_z=sigma_z,
        width=width,
        radius=radius,
        length=length,
        angle=angle,
        file=file,
    )
    _refuse_larger(_size(found), size)
    options = {"img_size": shape, "noise_model": noise_model(noise)}
    if boundary == "circular":
        return CircularBlur(found if isinstance(found, Tensor) else outer(found), **options)
    taps = separate(found) if isinstance(found, Tensor) else found
    if taps is None:
        assert isinstance(found, Tensor)
        return PaddedBlur(found, size, boundary, **options)
    return Separable(_matrices(size, taps, boundary), **options)


def image_shape(
    measured: tuple[int, ...], *, boundary: Boundary = "circular", noise: float = 0.0, **kernel: Any
) -> tuple[int, ...]:
    """Shape of the clean image behind a blurred one of shape `(C, H, W)` or `(C, D, H, W)`."""
    channels, *size = image_size(measured, dims=(2, 3))
    if boundary != "valid":
        return (channels, *size)
    lost = _size(_kernel(len(size), **kernel))
    return (channels, *[n + k - 1 for n, k in zip(size, lost, strict=True)])


def _kernel(
    dims: int,
    *,
    kernel: Kernel | Tensor = "gaussian",
    sigma: float = 2.0,
    sigma_z: float | None = None,
    width: int = 5,
    radius: float = 3.0,
    length: float = 15.0,
    angle: float = 0.0,
    file: Path | str | None = None,
) -> Tensor | Taps:
    """The kernel as an array, or as one array for every axis where that is how it is made."""
    if sigma_z is not None and dims == 2:
        raise ValueError(f"sigma_z is {sigma_z} but the image is flat; leave sigma_z out.")
    if file is not None:
        return file_kernel(file, dims)
    if isinstance(kernel, Tensor):
        return normalised(kernel, dims)
    match one_of("kernel", kernel, get_args(Kernel)):
        case "gaussian":
            taps = gaussian_taps(sigma)
            first = taps if sigma_z is None else gaussian_taps(sigma_z, "sigma_z")
            return (first, *[taps] * (dims - 1))
        case "box":
            return (box_taps(width),) * dims
        case "disk":
            return disk_kernel(radius, dims)
    if dims == 3:
        raise ValueError("a motion blurs flat images but the image is a volume; give a file.")
    return motion_kernel(length, angle)


def _matrices(size: Sequence[int], taps: Taps, boundary: str) -> list[Along]:
    """One matrix for every axis, the same object where they are equal."""
    made: list[tuple[int, Tensor, Along]] = []
    for n, k in zip(size, taps, strict=True):
        same = [a for m, other, a in made if m == n and other.equal(k)]
        along = same[0] if same else Along(gathering_matrix(padded(n, len(k), boundary), k, n))
        made.append((n, k, along))
    return [along for *_, along in made]


def _size(kernel: Tensor | Taps) -> tuple[int, ...]:
    return tuple(kernel.shape) if isinstance(kernel, Tensor) else tuple(map(len, kernel))


def _refuse_larger(kernel: Sequence[int], size: Sequence[int]) -> None:
    if any(k > n for k, n in zip(kernel, size, strict=True)):
        unit = "pixels" if len(size) == 2 else "voxels"
        found, image = ("x".join(map(str, numbers)) for numbers in (kernel, size))
        raise ValueError(
            f"the kernel is {found} {unit} but the image only {image}; choose a narrower blur or a "
            "larger image."
        )
