"""Trained on pairs, one paper, one file: restoration in a few calls, for one operator.

`families()` is what `restore train` can train; `available()` names every family that runs on a
network that ships, for example `resshift-x4`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from priors.training import Loss
    from restore.trained.family import TrainedSolver
    from restore.trained.pair_prior import PairPrior
    from restore.trained.pairs import Pairs
    from restore.trained.restorer import Restorer

    Target = Callable[[Pairs, Any], Loss]


DEFAULT = "resshift"  # of a network that serves every family


def families() -> dict[str, type["TrainedSolver"]]:
    """Name -> class of everything that brings a network of its own."""
    from restore.trained.idm import IDM

    return {**diffusions(), IDM.name: IDM}


def diffusions() -> dict[str, type["Restorer"]]:
    """Name -> class of every restoration diffusion."""
    from restore.trained.conditional import Conditional
    from restore.trained.mean_reverting import MeanReverting
    from restore.trained.ou_ve import OUVE
    from restore.trained.rddm import RDDM
    from restore.trained.resshift import ResShift
    from restore.trained.storm import StoRM

    kinds = (ResShift, RDDM, MeanReverting, OUVE, StoRM, Conditional)
    return {kind.name: kind for kind in kinds}


def trainable() -> dict[str, "Target"]:
    """Name -> training target: of every family, of all of them at once, and of a plain regression.

    "residual" is the target that serves every family that runs around the degraded image.
    """
    from restore.trained.residual import regression_loss, residual_loss

    targets: dict[str, Target] = {"residual": residual_loss, "regression": regression_loss}
    return targets | {name: kind.loss for name, kind in families().items()}


def available() -> dict[str, tuple[str, str]]:
    """Name -> (family, weights) of every restorer that ships.

    A network trained for the residual serves every family that runs around the degraded image.
    """
    from restore.trained.weights import SHELF

    names = {}
    for weights, card in SHELF.cards.items():
        for family in card.extra["families"]:  # pyright: ignore[reportGeneralTypeIssues]
            names[f"{family}-{weights}"] = (family, weights)
    return names


def load(name: str | Path) -> tuple["TrainedSolver", "PairPrior"]:
    """Return the solver and the network of a name of `available()` or of a user's file.

    Raises:
        ValueError: unknown name, or a file that is damaged or not of this kind.
        FileNotFoundError: no such file.
    """
    from restore.trained import weights

    family, stored = available().get(str(name), (None, name))
    prior = weights.load(stored)
    about = prior.trained
    family = family or (DEFAULT if about.family == "residual" else about.family)
    if family not in families():
        raise ValueError(
            f"'{prior.card.name}' is a {about.family} and no diffusion; use it as a predictor."
        )
    constants: dict[str, Any] = dict(about.constants) if family == about.family else {}
    if str(name) in available():
        constants |= cast(Any, prior.card.extra).get("constants", {}).get(family, {})
    return families()[family](**constants), prior
