"""From a damaged file to a restored one, and from a clean file to a damaged one.

What `restore image` and `restore degrade` do, callable from Python. Everything that can be refused
is refused before the first network call, and nothing is written unless all of it can be.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from deepinv.physics import Physics
from torch import Tensor
from tqdm.auto import tqdm

import operators
import priors
import restore
from priors import Denoiser
from priors.faster import Choice, fastest
from restore import images, trained
from restore.calibration import Calibration, refuse_few_images
from restore.files import check_free
from restore.measurements import (
    Measurement,
    portable,
    read_measurement,
    story_path,
    write_measurement,
    write_story,
)
from restore.result import Result, samples_for
from restore.run import solver_named
from restore.solver import Solver
from restore.solvers import DEFAULT
from restore.trained.pair_prior import PairPrior
from restore.trained.restorer import Restorer

LEVEL = 0.8  # of intervals without a calibration: nine samples tell no more apart
PRIOR_FOR_CHANNELS = {1: "natural-gray", 3: "natural"}


def restore_file(
    source: Path,
    out: Path,
    *,
    operator: str | None = None,
    noise: float | None = None,
    prior: str | None = None,
    solver: str | None = None,
    samples: int = 8,
    seed: int = 0,
    std: Path | None = None,
    interval: tuple[Path, Path] | None = None,
    calibration: Path | None = None,
    image_shape: tuple[int, ...] | None = None,
    batch_size: int | None = None,
    fast: bool = False,
    boundary: Path | None = None,
    device: str | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
) -> tuple[Result, dict[str, Any]]:
    """Restore one file; nothing is written when the solver diverged.

    Args:
        source: PNG, JPEG, TIFF or `.npz`.
        out: image file for the mean of the samples.
        operator: what damaged it; by default what the file records about itself, or what the
            solver was trained for.
        noise: std of its noise in units of a [0, 1] image; by default likewise.
        prior: by default the shipped one for the image's channels.
        solver: by default the best measured.
        samples: number of samples.
        seed: of the samples.
        std: file for the pixelwise std: the values themselves in a TIFF, else scaled so that white
            is the largest, which is recorded beside it.
        interval: files for the lower and the upper bound of every pixel.
        calibration: a file of `restore calibrate`: its level and factor make the bounds; without
            it they are the samples' own 80 % interval.
        image_shape: `(C, H, W)` of the clean image when neither file nor operator tells it.
        batch_size: samples computed together; by default as many as a megapixel holds.
        boundary: noise of `restore boundary` from which a trained restorer starts.
        fast: measure first, for some seconds, in which way the prior is called fastest on this
            size with a loss of at most 0.05 dB, and call it so. Ways differ in the last digits, so
            that the same seed no longer gives the same bits on every machine.
        device: by default "cuda" where there is one.
        overwrite: replace existing outputs, though never `source`.
        progress: show a bar; None shows it on a terminal only.

    Returns:
        The result, and the record that was written beside `out`.

    Raises:
        ValueError, OSError: one sentence on what does not fit and what to do.
    """
    outputs = [path for path in (out, std, *(interval or ())) if path is not None]
    _refuse_outputs(outputs, source, overwrite)
    fitted = _bounds(interval, calibration, samples)
    if std is not None and samples < 2:
        raise ValueError("a std needs at least 2 samples, found 1; raise --samples.")
    method, brought = solver_named(DEFAULT if solver is None else solver)
    if boundary is not None:
        method = _started(method, boundary)
    measured = _told_by(brought, read_measurement(source))
    images.check_transparency(out, measured.image)
    spec, sigma = _known("operator", operator, measured), _known("noise", noise, measured)
    clean = image_shape or _clean_shape(spec, measured)
    _refuse_noise(sigma, measured, source)
    physics = operators.parse(spec, clean, noise=sigma)
    _refuse_measurement(physics, clean, measured, source)
    where = usable_device(device)
    network = brought or (_prior_for(clean) if prior is None else prior)
    choice = _fastest(network, clean, method, samples, where) if fast else None
    result = restore.solve(
        measured.y.to(where),
        physics,
        network if choice is None else choice.prior,
        method,
        samples=samples,
        seed=seed,
        progress=progress,
        batch_size=batch_size or _batch_size(clean),
    )
    story = _story(result, source, spec, sigma, samples)
    if choice is not None:
        story["provenance"]["faster"] = choice.as_dict()
    if result.status != "diverged":
        bounds = fitted(result) if interval else None
        _write(out, std, result, measured, story, overwrite)
        if interval and bounds:
            _write_interval(interval, bounds, out, measured, overwrite)
    return result, story


def degrade_file(
    source: Path, out: Path, operator: str, *, noise: float, seed: int = 0, overwrite: bool = False
) -> Path:
    """Measure a clean image file and write the measurement with its record.

    Args:
        source: PNG, JPEG or TIFF.
        out: `.npz`, or an image file when the measurement is an image.
        operator: as `operators.parse` reads it.
        noise: Gaussian std in units of a [0, 1] image.
        seed: of the noise.
        overwrite: replace existing outputs, though never `source`.

    Raises:
        ValueError, OSError: one sentence on what does not fit and what to do.
    """
    check_free(out, source=source, overwrite=overwrite)
    photo = images.read(source)
    physics = operators.parse(operator, photo.shape, noise=noise)
    measured = Measurement(
        y=operators.measure(physics, photo.data, seed=seed),
        operator=operator,
        image_shape=photo.shape,
        noise=noise,
        image=photo,
    )
    story = {"seed": seed, "input": source.name}
    return write_measurement(out, measured, story=story, overwrite=overwrite)


def calibrate_files(
    sources: Sequence[Path],
    out: Path,
    operator: str,
    *,
    noise: float,
    level: float = LEVEL,
    crop: int | None = None,
    prior: str | None = None,
    solver: str | None = None,
    samples: int = 9,
    seed: int = 0,
    device: str | None = None,
    overwrite: bool = False,
    progress: bool | None = None,
) -> Calibration:
    """Damage clean images, restore them, and fit by how much intervals must be stretched.

    Args:
        sources: PNG, JPEG or TIFF, all grey or all in colour; folders give all of theirs.
        out: JSON file.
        operator: as `operators.parse` reads it.
        noise: Gaussian std in units of a [0, 1] image.
        level: share of pixels that intervals are to cover.
        crop: side of the middle part that is used; the whole image by default.
        prior: by default the shipped one for the images' channels.
        solver: by default the best measured.
        samples: an image.
        seed: of noise and samples.
        device: by default "cuda" where there is one.
        overwrite: replace an existing file.
        progress: show a bar; None shows it on a terminal only.

    Raises:
        ValueError, OSError: one sentence on what does not fit and what to do.
    """
    check_free(out, overwrite=overwrite)
    if samples < (needed := samples_for(level)):
        raise ValueError(
            f"a {level:.0%} interval needs at least {needed} samples, found {samples}; "
            f"give --samples {needed}."
        )
    paths = pictures(sources)
    refuse_few_images(len(paths), level)
    where, results, truths = usable_device(device), [], []
    for index, path in enumerate(tqdm(paths, disable=None if progress is None else not progress)):
        x = _middle(images.read(path).data, crop, path)
        clean = tuple(x.shape[1:])
        physics = operators.parse(operator, clean, noise=noise)
        y = operators.measure(physics, x, seed=seed + index)
        result = restore.solve(
            y.to(where),
            physics,
            _prior_for(clean) if prior is None else prior,
            DEFAULT if solver is None else solver,
            samples=samples,
            seed=seed + index,
            progress=False,
            batch_size=_batch_size(clean),
        )
        if result.status == "diverged":
            raise ValueError(f"'{path}' diverged ({result.remedy}); leave it out or change that.")
        results.append(result)
        truths.append(x)
    fitted = Calibration.fit(results, truths, level=level)
    fitted.save(out, overwrite=overwrite)
    return fitted


def pictures(sources: Sequence[Path]) -> list[Path]:
    """The files, and the pictures of the folders, in order of their names."""
    found: list[Path] = []
    for source in sources:
        if source.is_dir():
            inside = sorted(p for p in source.iterdir() if p.suffix.lower() in images.FORMATS)
            if not inside:
                raise ValueError(f"'{source}' holds no PNG, JPEG or TIFF; give clean pictures.")
            found += inside
        else:
            found.append(source)
    return found


def _middle(x: Tensor, crop: int | None, path: Path) -> Tensor:
    if crop is None:
        return x
    height, width = x.shape[-2:]
    if not 0 < crop <= min(height, width):
        raise ValueError(
            f"'{path}' is {height}x{width} pixels, too small for a part of {crop}; lower --crop."
        )
    top, left = (height - crop) // 2, (width - crop) // 2
    return x[..., top : top + crop, left : left + crop]


def usable_device(name: str | None) -> str:
    """A device by name, or the best there is.

    Raises:
        ValueError: this machine or this torch has no such device.
    """
    found = name or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ValueError(f"device '{found}' cannot be used ({reason}); try cpu.") from error
    return found


def _refuse_outputs(outputs: Sequence[Path], source: Path, overwrite: bool) -> None:
    """Refuse before anything is computed what could not be written afterwards."""
    for path in outputs:
        images.check_output(path, source=source, overwrite=overwrite)
        check_free(story_path(path), overwrite=overwrite)
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise ValueError(
            f"two outputs have one name among {', '.join(map(str, outputs))}; name different files."
        )


def _bounds(
    interval: tuple[Path, Path] | None, calibration: Path | None, samples: int
) -> Callable[[Result], tuple[Tensor, Tensor]]:
    """How the bounds will be made; refuse before anything is computed."""
    if calibration is not None and interval is None:
        raise ValueError("a calibration changes only the interval; give --low and --high too.")
    fitted = None if calibration is None else Calibration.load(calibration)
    level = LEVEL if fitted is None else fitted.level
    needed = samples_for(level)
    if interval is not None and samples < needed:
        raise ValueError(
            f"a {level:.0%} interval needs at least {needed} samples, found {samples}; "
            f"give --samples {needed}."
        )
    return lambda result: result.interval(level, calibration=fitted)


def _refuse_measurement(
    physics: Physics, clean: tuple[int, ...], measured: Measurement, source: Path
) -> None:
    with torch.no_grad():
        expected = tuple(physics.A(torch.zeros(1, *clean)).shape)
    if expected != tuple(measured.y.shape):
        raise ValueError(
            f"'{source}' has shape {tuple(measured.y.shape)} but the operator makes {expected} of "
            f"an image {clean}; check --operator and --shape."
        )


def _refuse_noise(sigma: float, measured: Measurement, source: Path) -> None:
    """A level of 255 given as it is would bury any picture of whole numbers, all within [0, 1]."""
    if measured.image is not None and measured.image.depth != "float" and sigma > 1:
        raise ValueError(
            f"the noise of '{source}' is said to be {sigma:g}, more than from black (0) to white "
            "(1); divide a level out of 255 by 255."
        )


def _known(name: str, given: Any, measured: Measurement) -> Any:
    """The user's word, or else what the file records about itself."""
    value = given if given is not None else getattr(measured, name)
    if value is None:
        example = {"operator": "blur:sigma=2", "noise": "0.02"}[name]
        raise ValueError(
            f"the file does not tell its {name}; give --{name}, for example --{name} {example}."
        )
    return value


def _told_by(network: PairPrior | None, measured: Measurement) -> Measurement:
    """A network trained for one operator tells it, where neither user nor file does."""
    if network is None:
        return measured
    about = network.trained
    return replace(
        measured,
        operator=measured.operator or about.operator,
        noise=sum(about.noise) / 2 if measured.noise is None else measured.noise,
    )


def _clean_shape(spec: str, measured: Measurement) -> tuple[int, ...]:
    if measured.image_shape is not None and spec == measured.operator:
        return measured.image_shape
    return operators.image_shape_from(spec, measured.y.shape[1:])


def _prior_for(clean: tuple[int, ...]) -> str:
    if clean[0] not in PRIOR_FOR_CHANNELS:
        raise ValueError(
            f"no prior that ships knows images of {clean[0]} channels; give --prior with a file."
        )
    return PRIOR_FOR_CHANNELS[clean[0]]


def _fastest(
    prior: str | Denoiser, clean: tuple[int, ...], method: Solver, samples: int, device: str
) -> Choice:
    """The prior in its fastest form for what the solver asks of it."""
    if method.paired or not isinstance(prior, str):
        raise ValueError(f"solver '{method.name}' brings its own network; leave --fast out.")
    return fastest(
        priors.load(prior),
        clean,
        calls=method.length * samples,
        derivatives="VJP" in method.cost,
        device=device,
    )


def _started(method: Solver, boundary: Path) -> Solver:
    """A restorer that starts from the noise of a file of `restore boundary`."""
    if not isinstance(method, Restorer):
        raise ValueError(
            f"--boundary is for restorers trained on pairs and '{method.name}' is none; choose "
            f"one of {', '.join(trained.available())}."
        )
    still = {"eta": 0.0} if hasattr(method, "eta") else {}  # the start decides only then
    return replace(method, boundary=str(boundary), **still)


def _batch_size(clean: tuple[int, ...]) -> int:
    """As many samples as a megapixel holds: memory stays bounded, small images stay fast."""
    return max(1, min(16, 2**20 // (clean[-1] * clean[-2])))


def _story(result: Result, source: Path, spec: str, noise: float, samples: int) -> dict[str, Any]:
    return {
        "kind": "restoration",
        "input": source.name,
        "operator": portable(spec),
        "noise": noise,
        "samples": samples,
        "status": result.status,
        "remedy": result.remedy,
        "misfit": result.misfit.tolist(),
        "mean_std": result.std.mean().item(),
        "forwards": result.cost.forwards,
        "vjps": result.cost.vjps,
        "seconds": result.cost.seconds,
        "provenance": dict(result.provenance) | {"operator": portable(spec)},
    }


def _write(
    out: Path,
    std: Path | None,
    result: Result,
    measured: Measurement,
    story: Mapping[str, Any],
    overwrite: bool,
) -> None:
    like = measured.image
    exact = like is None and out.suffix.lower() not in (".jpg", ".jpeg")
    depth = "float" if exact else None
    images.write(out, result.mean, like, depth=depth, overwrite=overwrite)
    write_story(out, story, overwrite=overwrite)
    if std is None:
        return
    spread = result.std
    white = 1.0 if std.suffix.lower() in (".tif", ".tiff") else max(spread.max().item(), 1e-12)
    images.write(std, spread / white, depth="float" if white == 1.0 else 8, overwrite=overwrite)
    about = {"kind": "std", "of": out.name, "white": white, "unit": "of an image in [0, 1]"}
    write_story(std, about, overwrite=overwrite)


def _write_interval(
    paths: tuple[Path, Path],
    bounds: tuple[Tensor, Tensor],
    out: Path,
    measured: Measurement,
    overwrite: bool,
) -> None:
    for path, bound, side in zip(paths, bounds, ("lower", "upper"), strict=True):
        images.write(path, bound, measured.image, overwrite=overwrite)
        write_story(path, {"kind": f"{side} bound", "of": out.name}, overwrite=overwrite)
