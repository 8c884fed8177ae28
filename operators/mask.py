"""Masks: what the instrument did not see is zero."""

# deepinv leaves its signatures untyped, so that no typed override agrees with them
# pyright: reportIncompatibleMethodOverride=false

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import torch
from deepinv.physics import Inpainting
from torch import Tensor

from .files import read_plane
from .noise import noise_model
from .svd import SVD, Decomposed
from .validate import image_size, number, one_of, seeded, whole

Direction = Literal["horizontal", "vertical"]


class Mask(Decomposed, Inpainting):
    """`y = m x` with zeros and ones `m`, shaped like `x`.

    An `Inpainting` of deepinv for whoever asks for its kind: noise stays off missing pixels.
    """

    mask: Tensor

    def svd(self) -> SVD:
        """`U = V = I`, `s = m`."""
        return SVD(self.mask, *[lambda x: x] * 4)


def mask(
    image_shape: Sequence[int],
    *,
    keep: float | None = None,
    seed: int = 0,
    bandwise: bool = False,
    box: tuple[int, ...] | None = None,
    lines: int | None = None,
    thickness: int = 1,
    direction: Direction = "horizontal",
    slices: str | Sequence[int] | None = None,
    axis: int = 0,
    file: Path | str | None = None,
    mask: Tensor | None = None,
    noise: float = 0.0,
) -> Mask:
    """Missing pixels: `y = m x`, the same pixels in every channel unless `bandwise`.

    Give one of `keep`, `box`, `lines`, `slices`, `file` and `mask`; without any, half the pixels
    are kept.

    Args:
        image_shape: `(C, H, W)` of one clean image; `(C, D, H, W)` of one volume with `keep`,
            `slices` or `mask`.
        keep: fraction of the pixels that are kept, at random places.
        seed: of the random places.
        bandwise: draw other random places for every channel.
        box: the hole, `(height, width)` in the middle or `(height, width, top, left)`;
            on the command line `40x60` or `40x60+10+20`.
        lines: number of evenly spaced lines that are missing.
        thickness: of a missing line, pixels.
        direction: "horizontal" or "vertical" lines.
        slices: numbers of the slices of a volume that are missing, the first is 0; on the command
            line `5`, `5-8`, or several such joined as in `5-8+12`.
        axis: spatial axis across the slices: 0 for D, 1 for H, 2 for W.
        file: picture or `.npy` array of the size of the image, white where a pixel is kept.
        mask: zeros and ones that broadcast to the image's shape, ones where a pixel is kept.
        noise: standard deviation of Gaussian noise on the kept pixels, in units of the image.

    Returns:
        Linear operator from `(B, C, *spatial)` to the same, zero at missing pixels.

    Raises:
        ValueError: more than one choice, nothing kept, or a mask of another size or of other values
            than zero and one.
        FileNotFoundError: there is no such mask file.
    """
    flat = box is not None or lines is not None or file is not None
    shape = image_size(image_shape, dims=(2,) if flat else (3,) if slices is not None else (2, 3))
    choices = dict(keep=keep, box=box, lines=lines, slices=slices, file=file, mask=mask)
    given = [name for name, choice in choices.items() if choice is not None]
    if len(given) > 1:
        raise ValueError(
            f"the mask is given by {' and '.join(given)}, expected one; drop the others."
        )
    if bandwise and given not in ([], ["keep"]):
        raise ValueError(f"bandwise draws random places but {given[0]} is given; drop one.")
    size = shape[1:]
    if box is not None:
        seen = box_mask(size, box)
    elif lines is not None:
        seen = line_mask(size, lines, thickness, direction)
    elif slices is not None:
        seen = slice_mask(size, slices, axis)
    elif file is not None:
        seen = file_mask(size, file)
    elif mask is not None:
        seen = own_mask(shape, mask)
    else:
        seen = random_mask(size, 0.5 if keep is None else keep, seed, shape[0] if bandwise else 1)
    if not seen.any():
        raise ValueError("the mask keeps no pixel, expected at least one; keep more.")
    everywhere = seen.expand(shape).float()
    # deepinv annotates tuple[int] and means three numbers
    return Mask(shape, mask=everywhere, noise_model=noise_model(noise))  # pyright: ignore[reportArgumentType]


def random_mask(size: tuple[int, ...], keep: float, seed: int, bands: int = 1) -> Tensor:
    """Keep `round(keep n)` of n pixels (at least one) in every band, at places drawn from `seed`.

    Returns:
        Boolean, `(bands, *size)`.
    """
    keep = number("keep", keep, above=0, high=1, do="give the fraction of pixels that are kept")
    total, generator = math.prod(size), seeded(seed)
    planes = torch.zeros(bands, total, dtype=torch.bool)
    for plane in planes:
        plane[torch.randperm(total, generator=generator)[: max(1, round(keep * total))]] = True
    return planes.reshape(bands, *size)


def box_mask(size: tuple[int, ...], box: Sequence[int]) -> Tensor:
    """A rectangular hole, in the middle unless its top left corner is given.

    Returns:
        `(H, W)`, boolean.
    """
    if len(box) not in (2, 4):
        raise ValueError(
            f"box is {tuple(box)}, expected (height, width) or (height, width, top, left)."
        )
    height, width = (whole("box", n, low=1, do="give HEIGHTxWIDTH in pixels") for n in box[:2])
    top, left = box[2:] or ((size[0] - height) // 2, (size[1] - width) // 2)
    if min(top, left) < 0 or top + height > size[0] or left + width > size[1]:
        raise ValueError(
            f"the box {height}x{width}+{top}+{left} does not fit into the {size[0]}x{size[1]} "
            "image; make it smaller or move it."
        )
    plane = torch.ones(size, dtype=torch.bool)
    plane[top : top + height, left : left + width] = False
    return plane


def line_mask(size: tuple[int, ...], lines: int, thickness: int, direction: Direction) -> Tensor:
    """Evenly spaced missing lines, each in the middle of its share of the image.

    Returns:
        `(H, W)`, boolean.
    """
    one_of("direction", direction, get_args(Direction))
    lines = whole("lines", lines, low=1, do="give the number of missing lines")
    thickness = whole("thickness", thickness, low=1, do="give the lines' thickness in pixels")
    length = size[0] if direction == "horizontal" else size[1]
    if lines * thickness >= length:
        raise ValueError(
            f"{lines} lines of {thickness} pixels leave nothing of the {length} pixels across; "
            "choose fewer or thinner lines."
        )
    first = ((torch.arange(lines) + 0.5) * length / lines - thickness / 2).floor().long()
    seen = torch.ones(length, dtype=torch.bool)
    seen[(first[:, None] + torch.arange(thickness)).flatten()] = False
    return (seen[:, None] if direction == "horizontal" else seen[None, :]).expand(size)


def slice_mask(size: tuple[int, ...], missing: str | Sequence[int], axis: int) -> Tensor:
    """Missing slices of a volume.

    Returns:
        `(D, H, W)`, boolean.
    """
    axis = whole("axis", axis, low=0, high=2, do="choose 0 (D), 1 (H) or 2 (W)")
    numbers = read_numbers(missing) if isinstance(missing, str) else missing
    seen = torch.ones(size[axis], dtype=torch.bool)
    for i in numbers:
        seen[whole("slices", i, low=0, high=size[axis] - 1, do="number them from 0")] = False
    return seen.reshape([-1 if i == axis else 1 for i in range(3)]).expand(size)


def read_numbers(text: str) -> list[int]:
    """Read `5`, `5-8`, or several such joined by `+`.

    Raises:
        ValueError: anything else.
    """
    found: list[int] = []
    for part in text.split("+"):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        if match is None:
            raise ValueError(f"slices is {text!r}, expected numbers such as 5, 5-8 or 5-8+12.")
        first, last = int(match[1]), int(match[2] or match[1])
        found += range(first, last + 1)
    return found


def file_mask(size: tuple[int, ...], file: Path | str) -> Tensor:
    """Black and white picture, white where a pixel is kept.

    Returns:
        `(H, W)`, boolean.
    """
    plane = read_plane(file)
    if tuple(plane.shape) != tuple(size):
        raise ValueError(
            f"the mask in '{file}' is {plane.shape[0]}x{plane.shape[1]} pixels but the image "
            f"{size[0]}x{size[1]}; give a mask of the image's size."
        )
    if not ((plane == 0) | (plane == plane.max())).all():
        raise ValueError(
            f"the mask in '{file}' has {len(plane.unique())} grey values, expected black and "
            "white; threshold it and save it as PNG."
        )
    return plane > 0


def own_mask(shape: tuple[int, ...], mask: Tensor) -> Tensor:
    """Zeros and ones of one's own, if they are.

    Returns:
        Boolean, of shape `shape`.
    """
    try:
        everywhere = torch.as_tensor(mask).detach().cpu().expand(shape)
    except RuntimeError:
        raise ValueError(
            f"the mask has shape {tuple(mask.shape)} but the image {shape}; give one of the "
            "image's shape, or one plane for all channels."
        ) from None
    if not ((everywhere == 0) | (everywhere == 1)).all():
        raise ValueError(
            f"the mask has values from {everywhere.min():g} to {everywhere.max():g}, expected "
            "only 0 and 1; threshold it, or use stripes for gains."
        )
    return everywhere.bool()
