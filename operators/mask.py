"""Masks: pixels that the instrument did not see are zero."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from deepinv.physics import Inpainting
from torch import Tensor

from .files import read_plane
from .noise import noise_model
from .validate import image_size, number, one_of, seeded, whole

Direction = Literal["horizontal", "vertical"]


def mask(
    image_shape: Sequence[int],
    *,
    keep: float | None = None,
    seed: int = 0,
    box: tuple[int, ...] | None = None,
    lines: int | None = None,
    thickness: int = 1,
    direction: Direction = "horizontal",
    file: Path | str | None = None,
    noise: float = 0.0,
) -> Inpainting:
    """Missing pixels: `y = m x`, the same pixels in every channel.

    Give one of `keep`, `box`, `lines` and `file`; without any, half the pixels are kept.

    Args:
        image_shape: `(C, H, W)` of one clean image.
        keep: fraction of the pixels that are kept, at random places.
        seed: of the random places.
        box: the hole, `(height, width)` in the middle or `(height, width, top, left)`;
            on the command line `40x60` or `40x60+10+20`.
        lines: number of evenly spaced lines that are missing.
        thickness: of a missing line, pixels.
        direction: "horizontal" or "vertical" lines.
        file: picture or `.npy` array of the size of the image, white where a pixel is kept.
        noise: standard deviation of Gaussian noise on the kept pixels, in units of the image.

    Returns:
        Linear operator from `(B, C, H, W)` to `(B, C, H, W)`, zero at missing pixels.

    Raises:
        ValueError: more than one choice, nothing kept, or a mask of another size.
        FileNotFoundError: there is no such mask file.
    """
    shape = image_size(image_shape)
    size = shape[1:]
    choices = {"keep": keep, "box": box, "lines": lines, "file": file}
    given = [name for name, choice in choices.items() if choice is not None]
    if len(given) > 1:
        raise ValueError(
            f"the mask is given by {' and '.join(given)}, expected one; drop the others."
        )
    if box is not None:
        plane = box_mask(size, box)
    elif lines is not None:
        plane = line_mask(size, lines, thickness, direction)
    elif file is not None:
        plane = file_mask(size, file)
    else:
        plane = random_mask(size, 0.5 if keep is None else keep, seed)
    if not plane.any():
        raise ValueError("the mask keeps no pixel, expected at least one; keep more.")
    everywhere = plane.float().expand(shape).clone()
    # deepinv annotates tuple[int] and means three numbers
    return Inpainting(shape, mask=everywhere, noise_model=noise_model(noise))  # pyright: ignore[reportArgumentType]


def random_mask(size: tuple[int, int], keep: float, seed: int) -> Tensor:
    """Keep `round(keep H W)` pixels (at least one) at places drawn from `seed`.

    Returns:
        `(H, W)`, boolean.
    """
    keep = number("keep", keep, above=0, high=1, do="give the fraction of pixels that are kept")
    total = size[0] * size[1]
    places = torch.randperm(total, generator=seeded(seed))[: max(1, round(keep * total))]
    plane = torch.zeros(total, dtype=torch.bool)
    plane[places] = True
    return plane.reshape(size)


def box_mask(size: tuple[int, int], box: Sequence[int]) -> Tensor:
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


def line_mask(size: tuple[int, int], lines: int, thickness: int, direction: Direction) -> Tensor:
    """Evenly spaced missing lines, each in the middle of its share of the image.

    Returns:
        `(H, W)`, boolean.
    """
    one_of("direction", direction, ("horizontal", "vertical"))
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


def file_mask(size: tuple[int, int], file: Path | str) -> Tensor:
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
