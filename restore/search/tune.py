"""Tune a sampler to a prior and a number of calls: starts, reference, search, held-out check."""

from dataclasses import replace

import torch
from tqdm.auto import tqdm

from operators.validate import number, one_of, whole
from priors import Denoiser, Gaussian
from restore import __version__
from restore.draw import HIGH, LOW
from restore.samplers import named
from restore.samplers.terminal import moments, white
from restore.search.levels import search_levels
from restore.search.objectives import Objective, draw_starts, exact, paired
from restore.search.rules import search_solver
from restore.search.stored import Searched

WHAT = ("grid", "solver")


def tune(
    prior: Denoiser,
    image_shape: tuple[int, ...],
    *,
    calls: int,
    what: str = "grid",
    sampler: str = "adams-2",
    high: float | None = None,
    low: float | None = None,
    starts: int = 8,
    reference: int = 100,
    population: int = 30,
    generations: int = 10,
    seed: int = 0,
    progress: bool | None = None,
) -> Searched:
    """Search the grid of a sampler, or a solver schedule, for few network calls.

    The error is that of the clean image: against the flow of a prior that knows it, otherwise
    against a long run from the same starts (`objectives`). The level from which the last denoising
    is made is sought too.

    Args:
        prior: the denoiser.
        image_shape: `(C, *spatial)` of the images to search on.
        calls: network calls an image, the final denoising included.
        what: "grid" searches the levels of `sampler`, "solver" the rule of each step too.
        sampler: a name of `restore.samplers.available()`, for "grid".
        high: noise level of the start, 40 widths of the prior's range where it knows that much.
        low: lowest noise level, a hundredth of the width likewise.
        starts: images the search looks at; as many others are held out.
        reference: calls of the long run.
        population: see `search.search_levels`.
        generations: likewise.
        seed: any whole number.
        progress: show a bar; None shows it on a terminal only.

    Returns:
        What was found, its error on held-out starts included.

    Raises:
        ValueError: one sentence on what does not fit and what to do.
    """
    if (reason := prior.refuse((1, *image_shape))) is not None:
        raise ValueError(reason)
    one_of("what", what, WHAT)
    whole("starts", starts, low=1, do="choose more")
    whole("seed", seed, low=0, do="choose another")
    whole(
        "reference", reference, low=2 * whole("calls", calls, low=2, do="choose more"), do="or so"
    )
    ends = _ends(prior, high, low)
    bar = tqdm(
        total=population * generations,
        desc=f"search {what}",
        disable=None if progress is None else not progress,
    )

    def tick(best: float) -> None:
        bar.update()
        bar.set_postfix_str(f"error {best:.4g}", refresh=False)

    numbers = {"population": population, "generations": generations, "seed": seed, "tick": tick}
    with bar:
        seen, unseen = (
            _objective(prior, image_shape, ends, starts, reference, each)
            for each in (2 * seed, 2 * seed + 1)
        )
        if what == "grid":
            steps = named(sampler).steps_within(calls)
            found, baseline = search_levels(seen, named(sampler), steps, **numbers)
        else:
            found, baseline = search_solver(seen, calls - 1, **numbers)
    about = {
        "prior": prior.card.name,
        "sha256": prior.card.sha256,
        "image_shape": list(image_shape),
        "starts": starts,
        "reference_calls": reference if seen.name == "paired" else 0,
        "population": population,
        "generations": generations,
        "seed": seed,
        "version": __version__,
    }
    return replace(
        found,
        held_out=unseen(found.sampler, found.levels),
        baseline_held_out=unseen(*baseline),
        about=about,
    )


def _objective(
    prior: Denoiser,
    image_shape: tuple[int, ...],
    ends: tuple[float, float],
    count: int,
    reference: int,
    seed: int,
) -> Objective:
    """Return the objective that suits a prior, on starts of a seed."""
    high, low = ends
    x = draw_starts(_moments(prior, image_shape), count, high=high, seed=seed)
    if isinstance(prior, Gaussian) or hasattr(prior, "flow"):
        return exact(prior, x, high=high, low=low)
    parameter = next(prior.parameters(), x)
    x = x.to(parameter.device, torch.float64 if prior.card.exact else torch.float32)
    return paired(prior, x, high=high, low=low, calls=reference)


def _moments(prior: Denoiser, image_shape: tuple[int, ...]) -> Gaussian:
    """Mean and covariance of the images, or the middle of their range and a quarter of it."""
    try:
        return moments(prior, image_shape)
    except ValueError:
        low, high = prior.card.value_range
        return white(image_shape, (low + high) / 2, (high - low) / 4)


def _ends(prior: Denoiser, high: float | None, low: float | None) -> tuple[float, float]:
    """Noise levels of the first point and the lowest of the last.

    Raises:
        ValueError: levels that the prior does not know, or in the wrong order.
    """
    known_low, known_high = prior.card.sigma_range
    width = prior.card.value_range[1] - prior.card.value_range[0]
    first = min(HIGH * width, known_high) if high is None else high
    last = max(LOW * width, known_low) if low is None else low
    number("high", first, above=2 * last, high=known_high, do=f"prior '{prior.card.name}' knows it")
    number("low", last, above=0, high=first / 2, do="search between two levels")
    if last < known_low:
        raise ValueError(
            f"low is {last:g} and prior '{prior.card.name}' knows noise from {known_low:g} up; "
            "raise it."
        )
    return first, last
