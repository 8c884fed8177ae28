"""What `restore train` does: a folder of images in; weights, their card and a picture out."""

import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from tqdm.auto import tqdm

from restore import __version__, images
from restore.files import atomic, check_free
from restore.filework import pictures, usable_device
from restore.metrics import psnr
from restore.trained import DEFAULT, diffusions, weights
from restore.trained.normal import Normal
from restore.trained.pair_prior import PairPrior
from restore.trained.restorer import regress
from restore.trained.training import Plan, Training
from restore.trained.unrolled import Unrolled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

log = logging.getLogger("restore")

_SAMPLES = 4  # of every validation crop


class Outcome(NamedTuple):
    """What a training reached on crops that it never saw: mean PSNR in dB.

    `degraded` is that of the degraded images, `regression` of the network under overwhelming noise,
    `mean` of the mean of four samples, `sample` of single ones (the last two NaN for what draws
    none).
    """

    degraded: float
    regression: float
    mean: float
    sample: float
    seconds: float

    def words(self) -> str:
        """One line for a person."""
        told = {
            "degraded": self.degraded,
            "regression": self.regression,
            f"mean of {_SAMPLES} samples": self.mean,
            "one sample": self.sample,
        }
        parts = [f"{what} {value:.2f} dB" for what, value in told.items() if value == value]
        return f"On held-out crops: {', '.join(parts)}."


def train_files(
    sources: Sequence[Path],
    out: Path,
    plan: Plan,
    *,
    device: str | None = None,
    every: int = 500,
    overwrite: bool = False,
    progress: bool | None = None,
) -> Outcome:
    """Train on pictures and write `OUT.safetensors`, `OUT.json` (its card) and `OUT.png`.

    Args:
        sources: pictures and folders of them, all grey or all in colour.
        out: safetensors file. A checkpoint of the same name, ending `.run.safetensors`, is written
            as training goes, taken up when it is there, and removed at the end.
        plan: what to train.
        device: by default "cuda" where there is one.
        every: steps between checkpoints.
        overwrite: replace existing files.
        progress: show a bar; None shows it on a terminal only.

    Raises:
        ValueError, OSError: one sentence on what does not fit and what to do.
    """
    if out.suffix != ".safetensors":
        raise ValueError(f"'{out.name}' must end in .safetensors, the only format of weights here.")
    card, picture = out.with_suffix(".json"), out.with_suffix(".png")
    for path in (out, card, picture):
        check_free(path, overwrite=overwrite)
    started = time.perf_counter()
    training = Training(plan, read_scenes(sources, plan.patch), usable_device(device))
    checkpoint = out.with_suffix(".run.safetensors")
    loss = 1.0
    with tqdm(
        total=plan.recipe.steps,
        desc=plan.family,
        disable=None if progress is None else not progress,
    ) as bar:
        for done in training.run(checkpoint, every):
            loss += 0.01 * (done.loss - loss)
            bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            bar.update(done.step - bar.n)
    prior = training.prior(out.stem).eval().requires_grad_(False).cpu()
    weights.save(out, prior)
    outcome, panel = _validate(weights.load(out), training, time.perf_counter() - started)
    _write_card(card, plan, training, outcome)
    with atomic(picture, overwrite=True) as partial:
        panel.savefig(partial, dpi=120, facecolor="white")
    checkpoint.unlink(missing_ok=True)
    return outcome


def read_scenes(sources: Sequence[Path], patch: int) -> list[Tensor]:
    """Read pictures as `(C, H, W)` uint8.

    Raises:
        ValueError: none at all, pictures smaller than twice the crops, grey among colour.
    """
    scenes: list[Tensor] = []
    for path in pictures(sources):
        x = images.read(path).data[0]
        short, needed = min(x.shape[1:]), max(128, patch)
        if short < needed:
            raise ValueError(
                f"'{path.name}' is {x.shape[1]}x{x.shape[2]} pixels, training needs sides of at "
                f"least {needed}; leave it out."
            )
        if scenes and x.shape[0] != scenes[0].shape[0]:
            raise ValueError(
                f"'{path.name}' has {x.shape[0]} channels, those before {scenes[0].shape[0]}; "
                "give pictures of one kind."
            )
        scenes.append((255 * x).round().to(torch.uint8))
    return scenes


def _validate(prior: PairPrior, training: Training, seconds: float) -> tuple[Outcome, "Figure"]:
    from restore.plot import panel

    if isinstance(prior.network, Unrolled):
        return _validate_unrolled(prior.network, training, seconds)
    x_0, y_0 = training.validation()
    fit = regress(prior, y_0)
    columns = {"truth": list(x_0), "degraded": list(y_0), "regression": list(fit)}
    mean = sample = float("nan")
    if training.plan.family != "regression":
        family = DEFAULT if training.plan.family == "residual" else training.plan.family
        drawn = diffusions()[family]().around(prior, y_0, samples=_SAMPLES)
        columns |= {"one sample": list(drawn[0]), "posterior std": list(drawn.std(0))}
        mean, sample = _psnr(drawn.mean(0), x_0), _psnr(drawn[0], x_0)
    outcome = Outcome(_psnr(y_0, x_0), _psnr(fit, x_0), mean, sample, seconds)
    return outcome, panel(columns)


def _validate_unrolled(
    network: Unrolled, training: Training, seconds: float
) -> tuple[Outcome, "Figure"]:
    from restore.plot import panel

    x_0, y, operator = training.measured()
    normal = Normal(operator, y, tuple(x_0.shape[1:]))
    with torch.no_grad():
        first, fit = network.seen(normal), network(normal)
    shown = {"truth": x_0, "back-projected": first, "reconstructed": fit}
    columns = {
        name: list(x.norm(dim=1, keepdim=True) if x.shape[1] == 2 else x)
        for name, x in shown.items()
    }
    none = float("nan")
    return Outcome(_psnr(first, x_0), _psnr(fit, x_0), none, none, seconds), panel(columns)


def _psnr(x: Tensor, truth: Tensor) -> float:
    return float(psnr(x.clamp(0, 1), truth).mean())


def _write_card(path: Path, plan: Plan, training: Training, outcome: Outcome) -> None:
    told = {
        "restore": __version__,
        "torch": torch.__version__,
        "plan": asdict(plan),
        "spread": training.spread,
        "parameters": sum(p.numel() for p in training.network.parameters()),
        "held_out_psnr": outcome._asdict(),
    }
    with atomic(path, overwrite=True) as partial:
        partial.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
