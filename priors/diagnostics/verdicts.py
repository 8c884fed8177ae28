"""What to conclude from a diagnosis: one sentence a question.

A sentence accuses a prior only of what is both large enough to matter (the bounds below) and beyond
chance (three standard errors over the images).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from priors.diagnostics.level import Level

ASYMMETRY = 0.1  # of J; above, conjugate gradients and densities are in doubt
GAP = 0.10  # of the std that it expects against the one it makes
CHI_SQUARE = (0.8, 1.25)
HOMOGENEOUS = 1e-3


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One conclusion.

    Attributes:
        about: the question.
        ok: the answer; None where the diagnosis cannot tell or where neither is wrong.
        sentence: for people.
    """

    about: str
    ok: bool | None
    sentence: str


def judge(found: Sequence[Level]) -> Iterator[Verdict]:
    """Yield one verdict a question."""
    yield _about_sigma(found)
    yield _about_error(found)
    yield _about_pixels(found)
    yield _about_symmetry(found)
    yield _about_dimension(found)
    yield _about_homogeneity(found)
    yield _about_memory(found)


def _about_sigma(found: Sequence[Level]) -> Verdict:
    # equal errors, as of a point mass that does not listen to sigma, are no preference
    wrong = [w for w in found if min(w.told.half, w.told.twice) < 0.999 * w.told.true]
    better = sorted({"half" if w.told.half < w.told.twice else "twice" for w in wrong})
    return Verdict(
        about="noise level",
        ok=not wrong,
        sentence=f"Told {' or '.join(better)} the true noise it errs less at sigma "
        f"{_list(wrong)}; check value range and schedule before using it there."
        if wrong
        else "It errs least when told the true noise, at every level.",
    )


def _about_error(found: Sequence[Level]) -> Verdict:
    def large(level: Level) -> bool:
        return abs(level.gap) > max(GAP, _chance(level.gap_error))

    bold = [level for level in found if large(level) and level.gap < 0]
    meek = [level for level in found if large(level) and level.gap > 0]
    parts = []
    if bold:
        worst = min(bold, key=lambda level: level.gap)
        parts.append(
            f"Overconfident at sigma {_list(bold)}: it expects errors up to {-worst.gap:.0%} "
            "smaller than it makes, so posterior spread from its Jacobian is too narrow there."
        )
    if meek:
        worst = max(meek, key=lambda level: level.gap)
        parts.append(
            f"Too modest at sigma {_list(meek)}: it expects errors up to {worst.gap:.0%} larger "
            "than it makes, so posterior spread from its Jacobian is too wide there."
        )
    most = max(abs(level.gap) for level in found)
    fine = f"It expects the errors that it makes: off by {most:.0%} at most, or within chance."
    return Verdict(about="expected error", ok=not parts, sentence=" ".join(parts) or fine)


def _about_pixels(found: Sequence[Level]) -> Verdict:
    low, high = CHI_SQUARE

    def wrong(level: Level) -> bool:
        c = level.calibration
        beyond = abs(c.chi_square - 1) > _chance(c.chi_square_error)
        return c.senseless > 0 or (beyond and not low <= c.chi_square <= high)

    bad = [level for level in found if wrong(level)]
    ratio = [level.calibration.chi_square for level in found]
    cover = [level.calibration.covers[0.8] for level in found]
    span = (
        f"squared error over its variance is {min(ratio):.2f} to {max(ratio):.2f}, and intervals "
        f"of 80 % hold {min(cover):.0%} to {max(cover):.0%} of the pixels."
    )
    sentence = (
        f"At sigma {_list(bad)} its std of single pixels is not to be trusted: {span}"
        if bad
        else f"Its std of single pixels fits their errors within bounds or chance: {span}"
    )
    return Verdict(about="error of pixels", ok=not bad, sentence=sentence)


def _about_symmetry(found: Sequence[Level]) -> Verdict:
    bad = [level for level in found if level.asymmetry > ASYMMETRY]
    worst = max(level.asymmetry for level in found)
    sentence = (
        f"Its Jacobian is asymmetric by up to {worst:.2g} (sigma {_list(bad)}): it is the gradient "
        "of no density; solve with a method that does not assume symmetry (generalised "
        "conjugate residuals or GMRES rather than conjugate gradients)."
        if bad
        else f"Its Jacobian is symmetric to within {worst:.1g}: close to the gradient of a density."
    )
    return Verdict(about="symmetry", ok=not bad, sentence=sentence)


def _about_dimension(found: Sequence[Level]) -> Verdict:
    first, last = found[0], found[-1]
    negative = any(level.dimension.trace.mean < 0 for level in found)
    kept = " and ".join(
        f"{max(level.dimension.trace.mean, 0):.3g} at sigma {level.sigma:g}"
        for level in ([first] if first is last else [first, last])
    )
    return Verdict(
        about="dimension",
        ok=False if negative else None,
        sentence=f"Of {first.dimension.size} numbers of an image it keeps {kept}"
        + ("; a negative trace is no covariance." if negative else "."),
    )


def _about_homogeneity(found: Sequence[Level]) -> Verdict:
    linear = max(level.linear for level in found) < HOMOGENEOUS
    scale = [level for level in found if level.scale < HOMOGENEOUS]
    if linear:
        sentence = "It is linear along rays, D = J y: its shrinkage spectrum explains all it does."
    elif len(scale) == len(found):
        sentence = "It scales with its input, D(a y, a sigma) = a D(y, sigma): free of bias."
    elif scale:
        sentence = f"It scales with its input at sigma {_list(scale)} only."
    else:
        sentence = "It does not scale with its input: it knows the range of its images."
    return Verdict(about="homogeneity", ok=None, sentence=sentence)


def _about_memory(found: Sequence[Level]) -> Verdict:
    about = "memory"
    if found[0].memory is None:
        return Verdict(
            about=about, ok=None, sentence="Memory was not tested: no training images given."
        )
    gaps = [level for level in found if level.memory and not level.memory.passed]
    pulled = [level for level in found if level.neighbours and not level.neighbours.passed]
    parts = []
    if gaps:
        worst = max(level.memory.decibels for level in gaps if level.memory)
        parts.append(
            f"it denoises its training images up to {min(worst, 99):.2g} dB better than others "
            f"(sigma {_list(gaps)})"
        )
    if pulled:
        parts.append(f"its results lie nearest to training images (sigma {_list(pulled)})")
    return Verdict(
        about=about,
        ok=not parts,
        sentence=f"It memorised: {' and '.join(parts)}."
        if parts
        else "No sign of memory: it treats training images and others alike.",
    )


def _chance(error: float) -> float:
    """Three standard errors; with one image there is no telling."""
    return 0.0 if math.isnan(error) else 3 * error


def _list(found: Sequence[Level]) -> str:
    *first, last = [f"{level.sigma:g}" for level in found]
    return f"{', '.join(first)} and {last}" if first else last
