"""Operators from one line of text: `blur:sigma=2`, `mask:keep=0.2,seed=3`, `ct:angles=60`.

A specification is a name and options, `name:option=value,option=value`. The options of a name are
the keyword arguments of its constructor, and a value is read by the argument's annotation. An
operator that applies another takes it behind a bar, `slices:axis=0|ct:angles=60`: everything after
the first bar is its option `operator`.
"""

import inspect
import re
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NamedTuple

from deepinv.physics import Physics

from .blur import blur
from .blur import image_shape as before_blur
from .cassi import cassi
from .compressed_sensing import compressed_sensing
from .ct import ct
from .denoise import denoise
from .downsample import downsample
from .downsample import image_shape as before_downsampling
from .fusion import fusion
from .jpeg import jpeg
from .lens import lens
from .mask import mask
from .mri import mri
from .noncartesian import noncartesian
from .pet import pet
from .phase import phase
from .photographic import hdr, saturate
from .slices import image_shape as before_slicing
from .slices import slices
from .spectral import decolorise, response
from .spectral import image_shape as before_decolorising
from .stripes import stripes
from .thick import image_shape as before_averaging
from .thick import thick
from .validate import image_size
from .words import nearest

Shape = tuple[int, ...]

_ANY = ("seed", "memory_budget", "noise")  # options that change no pattern's statistics


class Entry(NamedTuple):
    """A constructor, and the clean shape behind a measured image when the measurement is one."""

    build: Callable[..., Physics]
    clean: Callable[..., Shape] | None = None


def _same(measured: Shape, **_: object) -> Shape:
    return image_size(measured, dims=(2, 3))


OPERATORS: dict[str, Entry] = {
    "denoise": Entry(denoise, _same),
    "blur": Entry(blur, before_blur),
    "lens": Entry(lens, _same),
    "mask": Entry(mask, _same),
    "stripes": Entry(stripes, _same),
    "downsample": Entry(downsample, before_downsampling),
    "thick": Entry(thick, before_averaging),
    "decolorise": Entry(decolorise, before_decolorising),
    "hdr": Entry(hdr, _same),
    "saturate": Entry(saturate, _same),
    "jpeg": Entry(jpeg, _same),
    "phase": Entry(phase),
    "response": Entry(response),
    "fusion": Entry(fusion),
    "cassi": Entry(cassi),
    "cs": Entry(compressed_sensing),
    "ct": Entry(ct),
    "mri": Entry(mri),
    "noncartesian": Entry(noncartesian),
    "pet": Entry(pet),
    "slices": Entry(slices, before_slicing),
}


def available() -> dict[str, tuple[str, dict[str, object]]]:
    """Every operator that `parse` knows: name -> (one line, options with their defaults)."""
    return {
        name: (_first_line(entry.build), {o: p.default for o, p in _options(entry.build).items()})
        for name, entry in OPERATORS.items()
    }


def parse(spec: str, image_shape: Sequence[int], *, noise: float = 0.0) -> Physics:
    """Build an operator from its specification.

    Args:
        spec: `name` or `name:option=value,...`, for example `"downsample:factor=4"`; whole
            numbers, decimals, words, `true`/`false`, files, and sizes such as `40x60`.
        image_shape: `(C, H, W)` of one clean image, or `(C, D, H, W)` of one volume.
        noise: standard deviation of Gaussian noise, unless the specification gives it.

    Returns:
        The operator; `.spec` holds the specification.

    Raises:
        ValueError: unknown name, option or value (the nearest valid word is named), a volume for
            an operator of flat images, or whatever the constructor refuses.
        FileNotFoundError: a file that is not there.
    """
    entry, options = _read_spec(spec)
    return _build(spec, entry, options, image_shape, noise)


def series(
    spec: str, image_shape: Sequence[int], count: int, *, option: str, step: float, noise: float = 0
) -> list[Physics]:
    """Build operators that differ in one option, which grows by `step` from one to the next.

    Args:
        spec: of the first, as for `parse`.
        image_shape: as for `parse`.
        count: how many.
        option: a number of the specification, such as the `seed` of a pattern or the `start` of an
            arc of views.
        step: what is added to it, a whole number if the option is one.
        noise: as for `parse`.

    Raises:
        ValueError: an option that is not a number, or whatever `parse` refuses.
    """
    entry, options = _read_spec(spec)
    known = _options(entry.build)
    if option not in known:
        raise ValueError(
            f"'{_name(spec)}' has no option {option!r}; {nearest(option, list(known))}"
        )
    first = options.get(option, known[option].default)
    if isinstance(first, bool) or not isinstance(first, int | float):
        raise ValueError(f"{option} of '{_name(spec)}' is {first}, not a number; vary another.")
    if isinstance(first, int) and step != int(step):
        raise ValueError(f"{option} takes whole numbers and cannot grow by {step:g}; grow by 1.")
    grow = int(step) if isinstance(first, int) else step
    values = ({option: first + i * grow} for i in range(count))
    return [_build(spec, entry, options | value, image_shape, noise) for value in values]


def same_but_seed(one: str, other: str) -> bool:
    """Whether two specifications differ in nothing but the seed of a random pattern.

    Raises:
        ValueError: a specification that cannot be read.
    """
    (entry, mine), (also, theirs) = _read_spec(one), _read_spec(other)
    options = {k: p.default for k, p in _options(entry.build).items() if k not in _ANY}
    return entry is also and all(
        mine.get(k, default) == theirs.get(k, default) for k, default in options.items()
    )


def image_shape_from(spec: str, measurement_shape: Sequence[int]) -> Shape:
    """Shape of the clean image behind a measurement that is itself an image.

    Args:
        spec: as for `parse`.
        measurement_shape: shape of one measured image.

    Returns:
        `(C, H, W)` or `(C, D, H, W)` of one clean image.

    Raises:
        ValueError: a bad specification, or a measurement that does not tell the image's shape.
    """
    entry, options = _read_spec(spec)
    if entry.clean is None or len(measurement_shape) not in (3, 4):
        raise ValueError(
            f"a measurement of '{_name(spec)}' does not tell the image's shape; "
            "give --shape CxHxW, or CxDxHxW for a volume."
        )
    return entry.clean(image_size(measurement_shape, dims=(2, 3)), **options)


def _build(
    spec: str, entry: Entry, options: dict[str, Any], image_shape: Sequence[int], noise: float
) -> Physics:
    if noise != 0 and options.get("noise", noise) != noise:
        raise ValueError(
            f"the noise is {noise} but {spec!r} says {options['noise']}; give it once."
        )
    shape = image_size(image_shape, dims=(2, 3))
    try:
        physics = entry.build(shape, **{"noise": noise, **options})
    except ValueError as error:
        # the shape is a good one, so that only its number of dimensions can be refused
        if str(error).startswith("image_shape is"):
            raise ValueError(_other_dimensions(spec.strip(), shape)) from None
        raise
    object.__setattr__(physics, "spec", spec)
    return physics


def _other_dimensions(spec: str, shape: Shape) -> str:
    size = "x".join(map(str, shape[1:]))
    if len(shape) == 4:
        return (
            f"'{_name(spec)}' takes flat images (C, H, W) but the image is a volume of {size} "
            f"voxels; write slices:axis=0|{spec}."
        )
    return (
        f"'{_name(spec)}' takes volumes (C, D, H, W) but the image is flat, {size} pixels; "
        "give a volume, or choose an operator of flat images."
    )


def _name(spec: str) -> str:
    return spec.partition("|")[0].partition(":")[0].strip()


def _read_spec(spec: str) -> tuple[Entry, dict[str, Any]]:
    outer, bar, inner = str(spec).partition("|")
    name, colon, rest = outer.partition(":")
    name = name.strip()
    if name not in OPERATORS:
        raise ValueError(f"operator {name!r} is unknown; {nearest(name, list(OPERATORS))}")
    entry = OPERATORS[name]
    if not bar:
        return entry, _read_options(spec, name, rest.split(",") if colon else [])
    if "operator" not in _options(entry.build):
        raise ValueError(f"'{name}' applies no other operator; drop {bar + inner!r} from {spec!r}.")
    options = _read_options(spec, name, rest.split(",") if rest.strip() else [])
    if "operator" in options:
        raise ValueError(f"{spec!r} gives operator twice; give it once.")
    return entry, options | {"operator": inner.strip()}


def _read_options(spec: str, name: str, items: Sequence[str]) -> dict[str, Any]:
    known, options = _options(OPERATORS[name].build), {}
    for item in items:
        option, equals, text = (part.strip() for part in item.partition("="))
        if not equals or not text:
            raise ValueError(f"{item!r} in {spec!r} has no value; write option=value.")
        if option not in known:
            raise ValueError(f"'{name}' has no option {option!r}; {nearest(option, list(known))}")
        if option in options:
            raise ValueError(f"{spec!r} gives {option} twice; give it once.")
        options[option] = _read_value(option, text, known[option].annotation)
    return options


def _options(build: Callable[..., Physics]) -> dict[str, inspect.Parameter]:
    """Keyword arguments that can be written in a specification."""
    parameters = inspect.signature(build, eval_str=True).parameters.values()
    return {
        p.name: p
        for p in parameters
        if p.kind is p.KEYWORD_ONLY and any(map(_reader, _members(p.annotation)))
    }


def _read_value(option: str, text: str, annotation: Any) -> object:
    readers = [reader for member in _members(annotation) if (reader := _reader(member))]
    for read, _ in readers:
        try:
            return read(text)
        except ValueError:
            continue
    if words := [w for m in _members(annotation) for w in _words(m)]:
        raise ValueError(f"{option} {text!r} is unknown; {nearest(text, words)}")
    raise ValueError(f"{option} is {text!r}, expected {' or '.join(e for _, e in readers)}.")


def _members(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a union, or the annotation itself."""
    if isinstance(annotation, UnionType) or typing.get_origin(annotation) is typing.Union:
        return typing.get_args(annotation)
    return (annotation,)


def _words(annotation: Any) -> tuple[str, ...]:
    return typing.get_args(annotation) if typing.get_origin(annotation) is Literal else ()


def _reader(annotation: Any) -> tuple[Callable[[str], object], str] | None:
    """How to read a type from text, and how to call it in a refusal."""
    kind = typing.get_origin(annotation) or annotation
    return {
        bool: (_read_bool, "true or false"),
        int: (int, "a whole number"),
        float: (float, "a number"),
        str: (str, "a word"),
        Path: (Path, "a file"),
        tuple: (_read_size, "HEIGHTxWIDTH or HEIGHTxWIDTH+TOP+LEFT in pixels"),
        Literal: (lambda text: _read_word(text, _words(annotation)), "a word"),
    }.get(kind)


def _read_word(text: str, words: Sequence[str]) -> str:
    if text not in words:
        raise ValueError(text)
    return text


def _read_bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _read_size(text: str) -> tuple[int, ...]:
    match = re.fullmatch(r"(\d+)x(\d+)(?:\+(\d+)\+(\d+))?", text)
    if match is None:
        raise ValueError(text)
    return tuple(int(n) for n in match.groups() if n is not None)


def _first_line(build: Callable[..., Physics]) -> str:
    return (inspect.getdoc(build) or "").split("\n", 1)[0]
