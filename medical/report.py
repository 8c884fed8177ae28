"""A page that shows what became of a scan: pictures, numbers, and how they were made.

One HTML file that asks nothing of anybody: pictures and style are inside, there are no scripts, and
nothing of the patient but the pictures themselves.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medical import pictures
from medical.pictures import View, Window
from medical.reconstruct.outcome import Restored, magnitude
from medical.volume import Volume
from restore.files import atomic

_TEMPLATE = "report.html"
_TITLES = {
    "ct-sparse": ("filtered back-projection", "restored"),
    "ct-limited": ("filtered back-projection", "restored"),
    "mri": ("zero filling", "restored"),
    "superres": ("thick slices", "restored"),
    "inpaint": ("linear interpolation", "restored"),
}


def write(restored: Restored, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write the page, whole or not at all.

    Raises:
        FileExistsError, FileNotFoundError: see `restore.files.check_free`.
    """
    path = Path(path)
    with atomic(path, overwrite=overwrite) as partial:
        partial.write_text(page(restored), encoding="utf-8")
    return path


def page(restored: Restored) -> str:
    """The page as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    house = Environment(
        loader=PackageLoader("medical", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    story = restored.story
    return house.get_template(_TEMPLATE).render(
        title=f"{story['measured'][:1].upper()}{story['measured'][1:]}",
        about=_about(restored),
        status=restored.status,
        remedy=restored.remedy,
        notes=restored.notes,
        columns=list(_columns(restored)),
        quality=_quality(restored),
        provenance=_provenance(story),
        spread=restored.std is not None,
        samples=story["samples"],
    )


def _columns(restored: Restored) -> Iterator[dict[str, Any]]:
    """Headings, pictures of the three planes, and a bar."""
    mean, before = magnitude(restored.mean), magnitude(restored.before)
    truth = None if restored.truth is None else magnitude(restored.truth)
    window = pictures.grey(truth or mean)
    point = _point(restored, mean, window)
    old, new = _TITLES.get(restored.story["task"], ("the scan", "restored"))
    if truth is not None:
        yield _column("the scan", truth, window, point)
        old = "with noise" if restored.story["task"] == "denoise" else old
    yield _column(old, before, window, point)
    samples = restored.story["samples"]
    yield _column(f"{new}, mean of {samples}" if samples > 1 else new, mean, window, point)
    against = before if truth is None else truth
    off = mean.derive(mean.data - against.data)
    heading = f"restored - {old}" if truth is None else "error (restored - the scan)"
    yield _column(heading, off, pictures.signed(off), point)
    if restored.std is not None:
        spread = magnitude(restored.std)
        heading = "std of the samples" if samples > 1 else "std of the posterior"
        yield _column(heading, spread, pictures.positive(spread), point)


def _point(restored: Restored, mean: Volume, window: Window) -> pictures.Point:
    """Where the planes cut: the middle, or a slice that was missing."""
    point = pictures.middle(mean, window)
    missing = restored.story["missing"]
    if restored.plane == "axial" and missing:
        return point._replace(d=missing[len(missing) // 2])
    return point


def _column(heading: str, volume: Volume, window: Window, point: pictures.Point) -> dict[str, Any]:
    return {
        "heading": heading,
        "pictures": [_picture(heading, view, window) for view in pictures.views(volume, point)],
        "bar": pictures.gradient(window.scale),
        "low": _number(window.low),
        "high": _number(window.high),
        "units": window.units,
    }


def _picture(heading: str, view: View, window: Window) -> dict[str, Any]:
    return {
        "plane": view.plane,
        "where": view.where,
        "aspect": f"{view.aspect:.4f}",
        "x": f"{100 * view.cross[0]:.2f}",
        "y": f"{100 * view.cross[1]:.2f}",
        "edges": view.edges,
        "source": pictures.data_uri(view.pixels, window),
        "alt": f"{view.plane} plane at {view.where}: {heading}, drawn from "
        f"{_number(window.low)} to {_number(window.high)} {window.units}",
    }


def _about(restored: Restored) -> dict[str, str]:
    volume, story = restored.mean, restored.story
    return {
        "scan": f"{volume.modality}, {' x '.join(map(str, volume.grid))} voxels of "
        f"{' x '.join(f'{s:.3g}' for s in volume.spacing)} mm, {volume.orientation}, "
        f"{volume.units}",
        "noise": f"std {story['noise']['std']:.3g} {story['noise']['unit']}",
        "prior": f"{story['prior']['name']}; trained on {story['trained on']}",
        "solver": f"{story['solver']['name']}, {story['samples']} sample"
        f"{'s' * (story['samples'] != 1)}, seed {story['seed']}, {story['seconds']:.0f} s",
        "data misfit": ", ".join(f"{m:.2f}" for m in story["misfit"]) + " (1 is consistent)",
    }


def _quality(restored: Restored) -> list[dict[str, Any]]:
    names = {"before": "without a prior", "restored": "restored"}
    return [
        {
            "name": names[name],
            "planes": [
                {"plane": p, "psnr": f"{q.psnr[p]:.2f}", "ssim": _three(q.ssim[p])} for p in q.psnr
            ],
            "error": _number(q.error),
            "step": _number(q.step),
            "width": _number(q.width),
            "units": restored.mean.units,
        }
        for name, q in restored.quality.items()
    ]


def _provenance(story: Mapping[str, Any]) -> dict[str, str]:
    """Nested plain values as lines of name and text."""
    lines: dict[str, str] = {}

    def walk(name: str, value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                walk(f"{name}: {key}", inner)
        else:
            lines[name] = (
                ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            )

    for key in ("task", "plane", "settings", "intensity", "prior", "solver", "seed", "versions"):
        walk(key, story[key])
    return lines


def _three(value: float | None) -> str:
    return "too small" if value is None else f"{value:.3f}"


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
