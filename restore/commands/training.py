"""`restore train`: a restorer for the user's own images and operator."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

if TYPE_CHECKING:
    from priors.training import Recipe
    from restore.trained.unrolled import Form, Keep


def train(
    family: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="resshift, rddm, ...; `residual` serves all diffusions; idm is an unrolled one.",
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Weights to write, .safetensors.")],
    operator: Annotated[str, typer.Option(metavar="SPEC", help="For example blur:sigma=2.")],
    images: Annotated[list[Path], typer.Option(help="Folder of clean pictures, or files.")],
    noise: Annotated[
        str,
        typer.Option(
            metavar="S", help="Std of the noise where white is 1, or LOW:HIGH for a range."
        ),
    ] = "0.01",
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 16000,
    batch: Annotated[int, typer.Option(min=1, help="Crops a step.")] = 8,
    size: Annotated[str, typer.Option(help="small or medium.")] = "medium",
    patch: Annotated[int, typer.Option(min=16, max=128, help="Side of the crops, pixels.")] = 64,
    begin: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="idm: prior or weights to start from, as natural-gray."),
    ] = None,
    keep: Annotated[
        str,
        typer.Option(
            help="idm: what stays in memory: everything, steps, or 'steps and blocks' (the least)."
        ),
    ] = "steps and blocks",
    unroll: Annotated[int, typer.Option(min=1, help="idm: steps of the sampler.")] = 3,
    form: Annotated[
        str,
        typer.Option(help="idm: ddim, the paper's steps, or oamp, better for compressed sensing."),
    ] = "ddim",
    seed: Annotated[int, typer.Option(help="Same seed, same weights.")] = 0,
    every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 500,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing outputs.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress bar, no words.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Numbers as JSON.")] = False,
) -> None:
    """Train a restorer for one operator.

    On your own pictures. Stopped at any time, the same command goes on where it stopped. Beside OUT
    stand its card (OUT.json) and a picture of held-out crops (OUT.png); use it with
    `restore image IN -o OUT --solver OUT.safetensors`.
    """
    from restore.console import print_json, say
    from restore.trained.training import Plan
    from restore.trained.trainwork import train_files

    plan = Plan(
        family=family,
        operator=operator,
        noise=_interval(noise),
        size=size,
        patch=patch,
        batch=batch,
        begin=begin,
        keep=cast("Keep", keep),
        unroll=unroll,
        form=cast("Form", form),
        recipe=_recipe(steps, seed),
    )
    outcome = train_files(
        images,
        out,
        plan,
        device=device,
        every=every,
        overwrite=overwrite,
        progress=False if quiet else None,
    )
    if as_json:
        print_json(outcome._asdict())
    elif not quiet:
        say(f"{outcome.words()}\nWrote {out}.")


def _recipe(steps: int, seed: int) -> "Recipe":
    from priors.training import Recipe

    return Recipe(steps=steps, seed=seed, warmup=min(200, steps))


def _interval(text: str) -> tuple[float, float]:
    low, _, high = text.partition(":")
    try:
        return float(low), float(high or low)
    except ValueError:
        raise ValueError(
            f"--noise is '{text}', expected one number or LOW:HIGH, for example 0.01 or 0:0.02."
        ) from None
