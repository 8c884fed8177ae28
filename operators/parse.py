"""Operators from one line of text: `blur:sigma=2`, `mask:keep=0.2,seed=3`, `ct:angles=60`.

A specification is a name and options, `name:option=value,option=value`. The options of a name are
the keyword arguments of its constructor, and a value is read by the argument's annotation.
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
from .compressed_sensing import compressed_sensing
from .ct import ct
from .denoise import denoise
from .downsample import downsample
from .downsample import image_shape as before_downsampling
from .mask import mask
from .mri import mri
from .spectral import decolorise
from .spectral import image_shape as before_decolorising
from .validate import image_size, nearest

Shape = tuple[int, int, int]


class Entry(NamedTuple):
    """A constructor, and the clean shape behind a measured image when the measurement is one."""

    build: Callable[..., Physics]
    clean: Callable[..., Shape] | None = None


def _same(measured: Shape, **_: object) -> Shape:
    return image_size(measured)


OPERATORS: dict[str, Entry] = {
    "denoise": Entry(denoise, _same),
    "blur": Entry(blur, before_blur),
    "mask": Entry(mask, _same),
    "downsample": Entry(downsample, before_downsampling),
    "decolorise": Entry(decolorise, before_decolorising),
    "cs": Entry(compressed_sensing),
    "ct": Entry(ct),
    "mri": Entry(mri),
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
        image_shape: `(C, H, W)` of one clean image.
        noise: standard deviation of Gaussian noise, unless the specification gives it.

    Returns:
        The operator; `.spec` holds the specification.

    Raises:
        ValueError: unknown name, option or value (the nearest valid word is named), or whatever
            the constructor refuses.
        FileNotFoundError: a file that is not there.
    """
    entry, options = _read_spec(spec)
    if noise != 0 and options.get("noise", noise) != noise:
        raise ValueError(
            f"the noise is {noise} but {spec!r} says {options['noise']}; give it once."
        )
    physics = entry.build(image_shape, **{"noise": noise, **options})
    object.__setattr__(physics, "spec", spec)
    return physics


def image_shape_from(spec: str, measurement_shape: Sequence[int]) -> Shape:
    """Shape of the clean image behind a measurement that is itself an image.

    Args:
        spec: as for `parse`.
        measurement_shape: `(C, H, W)` of one measured image.

    Returns:
        `(C, H, W)` of one clean image.

    Raises:
        ValueError: a bad specification, or a measurement that does not tell the image's shape.
    """
    entry, options = _read_spec(spec)
    if entry.clean is None:
        name = spec.partition(":")[0].strip()
        raise ValueError(
            f"a measurement of '{name}' does not tell the image's shape; give --shape CxHxW."
        )
    return entry.clean(image_size(measurement_shape), **options)


def _read_spec(spec: str) -> tuple[Entry, dict[str, Any]]:
    name, colon, rest = str(spec).partition(":")
    name = name.strip()
    if name not in OPERATORS:
        raise ValueError(f"operator {name!r} is unknown; {nearest(name, list(OPERATORS))}.")
    entry, read = OPERATORS[name], {}
    for item in rest.split(",") if colon else []:
        option, equals, text = (part.strip() for part in item.partition("="))
        if not equals or not text:
            raise ValueError(f"{item!r} in {spec!r} has no value; write option=value.")
        known = _options(entry.build)
        if option not in known:
            raise ValueError(f"'{name}' has no option {option!r}; {nearest(option, list(known))}.")
        if option in read:
            raise ValueError(f"{spec!r} gives {option} twice; give it once.")
        read[option] = _read_value(option, text, known[option].annotation)
    return entry, read


def _options(build: Callable[..., Physics]) -> dict[str, inspect.Parameter]:
    """Keyword arguments that can be written in a specification."""
    parameters = inspect.signature(build, eval_str=True).parameters.values()
    return {
        p.name: p
        for p in parameters
        if p.kind is p.KEYWORD_ONLY and any(map(_reader, _members(p.annotation)))
    }


def _read_value(option: str, text: str, annotation: Any) -> object:
    for member in _members(annotation):
        if typing.get_origin(member) is Literal:
            words = typing.get_args(member)
            if text not in words:
                raise ValueError(f"{option} {text!r} is unknown; {nearest(text, words)}.")
            return text
        if reader := _reader(member):
            read, expected = reader
            try:
                return read(text)
            except ValueError:
                raise ValueError(f"{option} is {text!r}, expected {expected}.") from None
    raise ValueError(
        f"{option} cannot be written in a specification; build the operator in Python."
    )


def _members(annotation: Any) -> tuple[Any, ...]:
    """The alternatives of a union, or the annotation itself."""
    if isinstance(annotation, UnionType) or typing.get_origin(annotation) is typing.Union:
        return typing.get_args(annotation)
    return (annotation,)


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
        Literal: (str, "a word"),
    }.get(kind)


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
