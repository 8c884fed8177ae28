"""Measurements in files, with the story of how they were made beside them.

A measurement that is itself a picture (blurred, masked, too small, noisy) is a PNG, JPEG or TIFF;
any other is a `.npz` with the arrays `y`, `operator`, `image_shape` and `noise`. Beside every
output stands `<file name>.json`: what made it, so that it can be made again and `restore image`
needs not be told twice. Neither holds absolute paths, names of people or times.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from restore import images
from restore.files import atomic, check_free


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One measurement and what is known about its making.

    Attributes:
        y: float32 `(1, ...)`.
        operator: the text that `operators.parse` reads, or None when unknown.
        image_shape: `(C, H, W)` of the clean image, or None when unknown.
        noise: Gaussian std in the units of a [0, 1] image, or None when unknown.
        image: the photograph when `y` came from one.
    """

    y: Tensor
    operator: str | None = None
    image_shape: tuple[int, ...] | None = None
    noise: float | None = None
    image: images.Image | None = None


def read_measurement(path: str | Path) -> Measurement:
    """Read a measurement from a picture or a `.npz`, and its sidecar when there is one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: unreadable, NaN, or float values outside [0, 1] in a picture that no sidecar
            declares to be a measurement.
    """
    path = Path(path)
    if path.suffix.lower() == ".npz":
        return _read_npz(path)
    story = read_story(path)
    photo = images.read(path, any_range=story.get("kind") == "measurement")
    if story.get("kind") != "measurement":
        return Measurement(y=photo.data, image=photo)
    return _measurement(path, story, photo.data, photo)


def write_measurement(
    path: str | Path,
    measurement: Measurement,
    *,
    story: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a measurement and its sidecar; the suffix chooses the format.

    PNG and JPEG clip to [0, 1] and round, as a camera does; float TIFF and `.npz` keep `y` exactly.

    Args:
        path: `.npz`, or an image suffix when `y` is `(1, 1 or 3, H, W)`.
        measurement: see `Measurement`.
        story: more to record in the sidecar, such as the seed.
        overwrite: replace existing files.

    Raises:
        FileExistsError, FileNotFoundError: the file exists, or its folder does not.
        ValueError: an image suffix for a measurement that is no image; an unknown suffix.
    """
    path, y = Path(path), measurement.y
    check_free(story_path(path), overwrite=overwrite)
    if path.suffix.lower() == ".npz":
        _write_npz(path, measurement, overwrite)
    elif y.ndim == 4 and y.shape[1] in (1, 3):
        images.write(path, y, measurement.image, overwrite=overwrite)
    else:
        raise ValueError(
            f"a measurement of shape {tuple(y.shape)} is not a picture; write it to "
            f"'{path.with_suffix('.npz').name}' instead of '{path.name}'."
        )
    known: dict[str, Any] = {
        "kind": "measurement",
        "operator": portable(measurement.operator or ""),
        "image_shape": list(measurement.image_shape or ()),
        "noise": measurement.noise,
    }
    write_story(path, known | dict(story or {}), overwrite=overwrite)
    return path


def story_path(path: str | Path) -> Path:
    """The sidecar of a file: `photo.png` -> `photo.png.json`."""
    path = Path(path)
    return path.parent / f"{path.name}.json"


def write_story(path: str | Path, story: Mapping[str, Any], *, overwrite: bool = False) -> Path:
    """Write the sidecar of `path`, atomically."""
    from restore import __version__

    target = story_path(path)
    text = json.dumps({"made_by": f"restore {__version__}"} | dict(story), indent=2)
    with atomic(target, overwrite=overwrite) as partial:
        partial.write_text(text + "\n", encoding="utf-8")
    return target


def read_story(path: str | Path) -> dict[str, Any]:
    """The sidecar of `path`; empty when there is none or it is another program's.

    Raises:
        ValueError: the sidecar is ours but damaged.
    """
    target = story_path(path)
    if not target.is_file():
        return {}
    try:
        story = json.loads(target.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"'{target}' is not valid JSON; repair or remove it.") from error
    ours = isinstance(story, dict) and str(story.get("made_by", "")).startswith("restore ")
    return story if ours else {}


def portable(spec: str) -> str:
    """The operator's text without the folders of absolute file names, which tell whose they are."""
    return re.sub(r"(=)(?:/|~|[A-Za-z]:[\\/])[^,]*?([^,/\\]+)(?=,|$)", r"\1\2", spec)


def _measurement(
    path: Path, story: Mapping[str, Any], y: Tensor, image: images.Image | None
) -> Measurement:
    """Check what a file claims about itself."""
    operator, shape, noise = (story.get(key) for key in ("operator", "image_shape", "noise"))
    try:
        return Measurement(
            y=y,
            operator=str(operator) if operator else None,
            image_shape=tuple(int(n) for n in shape) if shape else None,
            noise=None if noise is None else float(noise),
            image=image,
        )
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"what is recorded about '{path}' is damaged ({error}); remove the record and give "
            "--operator, --noise and --shape."
        ) from error


def _write_npz(path: Path, measurement: Measurement, overwrite: bool) -> None:
    noise = np.nan if measurement.noise is None else measurement.noise
    with atomic(path, overwrite=overwrite) as partial:
        np.savez_compressed(
            partial,
            y=measurement.y.detach().cpu().numpy(),
            operator=np.array(portable(measurement.operator or "")),
            image_shape=np.array(measurement.image_shape or (), np.int64),
            noise=np.array(noise),
        )


def _read_npz(path: Path) -> Measurement:
    if not path.is_file():
        raise FileNotFoundError(f"'{path}' does not exist.")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        y = torch.from_numpy(arrays["y"].astype(np.float32, casting="same_kind"))
    except Exception as error:  # zip, zlib and numpy each raise their own kinds
        reason = str(error).splitlines()[0].strip("'\". ") if str(error) else type(error).__name__
        raise ValueError(
            f"'{path}' holds no readable measurement ({reason}); expected a .npz with a real "
            "array 'y' of shape (1, ...)."
        ) from error
    if y.ndim < 2 or y.shape[0] != 1:
        raise ValueError(f"'{path}' holds 'y' of shape {tuple(y.shape)}, expected (1, ...).")
    if not torch.isfinite(y).all():
        raise ValueError(f"'{path}' holds NaN or infinite values; replace or mask them.")
    story = {name: a.tolist() for name, a in arrays.items() if name != "y"}
    noise = story.get("noise")
    story["noise"] = None if isinstance(noise, float) and np.isnan(noise) else noise
    return _measurement(path, story, y, None)
