"""Train a network under any loss: one generator that yields after every step.

The caller draws the progress bar, evaluates, stops early or does nothing:

    for progress in fit(network, loss, Recipe(steps=1000), checkpoint="run.safetensors"):
        bar.set_postfix(loss=progress.loss)

`train` is `fit` under the loss of a denoiser for every noise level.

A checkpoint holds weights, their average, Adam's moments, the step and the state of the random
generator in one safetensors file, so that a stopped run goes on exactly as if it had not stopped.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from operators.files import write_tensors

Sampler = Callable[[torch.Generator], Tensor]
"""Draws clean images `(B, C, H, W)` in [0, 1] from a generator."""

Network = Callable[..., Tensor]
"""The network as a loss calls it: in the precision of the recipe."""

Loss = Callable[[Network, torch.Generator], Tensor]
"""Draws a batch from the run's generator, calls the network, returns one number to descend."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The constants of a training run.

    Attributes:
        steps: optimiser steps in all; may be raised or lowered on resuming.
        sigmas: mixture `((weight, low, high), ...)` of noise levels for `train`; sigma is
            log-uniform inside each part.
        lr: Adam's learning rate after `warmup` steps.
        warmup: steps of linear rise.
        cooldown: last fraction of the steps, over which the rate falls to zero along a cosine.
        betas: Adam's moments.
        clip: largest gradient norm.
        ema: decay of the running average of the weights, the result of training.
        seed: of the only random stream, from which the loss draws.
        bfloat16: run the network's forward pass in bfloat16; weights stay float32.

    Raises:
        ValueError: for constants out of range.
    """

    steps: int
    sigmas: tuple[tuple[float, float, float], ...] = (
        (0.65, 5 / 255, 70 / 255),
        (0.20, 0.002, 0.3),
        (0.15, 0.3, 1.5),
    )
    lr: float = 2e-3
    warmup: int = 200
    cooldown: float = 0.6
    betas: tuple[float, float] = (0.9, 0.99)
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    bfloat16: bool = True

    def __post_init__(self) -> None:
        if self.steps < 1 or self.warmup < 1 or not 0 < self.cooldown <= 1:
            raise ValueError(
                "training needs steps >= 1, warmup >= 1 and 0 < cooldown <= 1, found "
                f"{self.steps}, {self.warmup} and {self.cooldown}; correct these."
            )
        if not all(weight > 0 and 0 < low <= high for weight, low, high in self.sigmas):
            raise ValueError(
                f"sigmas must be (weight > 0, 0 < low <= high), ..., found {self.sigmas}; "
                "correct these."
            )

    def rate(self, step: int) -> float:
        """Learning rate at `step` in [0, steps)."""
        rise = min(1.0, (step + 1) / self.warmup)
        left = max(0.0, (self.steps - step) / (self.cooldown * self.steps))
        return self.lr * rise * (1 - math.cos(math.pi * min(1.0, left))) / 2


@dataclass(frozen=True)
class Progress:
    """Where training stands after a step: its number, its loss, its learning rate."""

    step: int
    loss: float
    lr: float


class Run:
    """The state of a training run: network, average, optimiser and random stream.

    Only parameters are kept: a network with buffers that training changes (batch normalisation)
    would not go on exactly.
    """

    def __init__(self, network: nn.Module, recipe: Recipe) -> None:
        self.network = network
        self.step = 0
        self.optimiser = torch.optim.Adam(network.parameters(), lr=recipe.lr, betas=recipe.betas)
        self.average = {k: v.detach().clone() for k, v in network.named_parameters()}
        self.generator = torch.Generator().manual_seed(recipe.seed)

    def save(self, path: Path) -> None:
        """Write everything needed to go on, atomically."""
        tensors = {"random": self.generator.get_state(), "step": torch.tensor(self.step)}
        for name, parameter in self.network.named_parameters():
            state = self.optimiser.state[parameter]
            unused = torch.zeros_like(parameter)  # moments of what the loss does not reach
            tensors |= {
                f"weight/{name}": parameter.detach(),
                f"average/{name}": self.average[name],
                f"moment1/{name}": state.get("exp_avg", unused),
                f"moment2/{name}": state.get("exp_avg_sq", unused),
            }
        write_tensors(path, tensors)

    def resume(self, path: Path) -> None:
        """Take up the run that `save` wrote.

        Raises:
            ValueError: when the file is damaged or belongs to another network.
        """
        try:
            opened = safe_open(path, framework="pt")
        except SafetensorError as error:
            raise ValueError(
                f"checkpoint '{path.name}' is not a readable safetensors file ({error}); remove it "
                "to start anew."
            ) from None
        with opened as file:
            found = {k: tuple(file.get_slice(k).get_shape()) for k in file.keys()}
            weights = {k: shape for k, shape in found.items() if k.startswith("weight/")}
            wanted = {f"weight/{k}": tuple(p.shape) for k, p in self.network.named_parameters()}
            if weights != wanted:
                raise ValueError(
                    f"checkpoint '{path.name}' is of another network: "
                    f"{_difference(weights, wanted)}; start anew with another file name."
                )
            self.step = int(file.get_tensor("step"))
            self.generator.set_state(file.get_tensor("random"))
            for name, parameter in self.network.named_parameters():
                # in the parameter's memory format: arithmetic of another may round differently
                weight, average, first, second = (
                    torch.empty_like(parameter).copy_(file.get_tensor(f"{kind}/{name}"))
                    for kind in ("weight", "average", "moment1", "moment2")
                )
                parameter.data.copy_(weight)
                self.average[name] = average
                self.optimiser.state[parameter] = {
                    "step": torch.tensor(float(self.step)),
                    "exp_avg": first,
                    "exp_avg_sq": second,
                }


def _difference(found: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]) -> str:
    """Name the first tensor in which two networks differ."""
    name = min(k for k in found | wanted if found.get(k) != wanted.get(k))
    return f"'{name}' is {found.get(name, 'absent')}, expected {wanted.get(name, 'none')}"


def fit(
    network: nn.Module,
    loss: Loss,
    recipe: Recipe,
    *,
    checkpoint: str | Path | None = None,
    every: int = 500,
    target: nn.Module | None = None,
) -> Iterator[Progress]:
    """Descend a loss.

    Args:
        network: what is trained; its parameters are replaced by their running average when the last
            step is done.
        loss: see `Loss`.
        recipe: the constants.
        checkpoint: file to resume from when it exists, and to write every `every` steps.
        every: steps between checkpoints.
        target: a second network of the same kind that holds the running average while training
            goes on, for losses that compare the network with its own past.

    Yields:
        `Progress` after every step.

    Raises:
        ValueError: when the checkpoint is damaged or belongs to another network.
    """
    run = Run(network, recipe)
    path = Path(checkpoint) if checkpoint is not None else None
    if path is not None and path.exists():
        run.resume(path)
    if target is not None:
        for name, parameter in target.named_parameters():
            parameter.data = run.average[name]  # shared, so that it follows in place
        target.requires_grad_(False)
    network.train()
    while run.step < recipe.steps:
        progress = _advance(run, loss, recipe)
        if path is not None and (run.step % every == 0 or run.step == recipe.steps):
            run.save(path)
        yield progress
    network.load_state_dict(run.average, strict=False)
    network.eval()


def train(
    network: nn.Module,
    patches: Sampler,
    recipe: Recipe,
    *,
    checkpoint: str | Path | None = None,
    every: int = 500,
) -> Iterator[Progress]:
    """Fit `network(x, sigma)` to be the posterior mean at every sigma of the recipe.

    Args:
        network: called as `network(x, sigma)` with `x` `(B, C, H, W)` and `sigma` `(B,)`.
        patches: draws clean images in [0, 1] from the run's generator.
        recipe: the constants.
        checkpoint: see `fit`.
        every: see `fit`.

    Yields:
        `Progress` after every step.

    Raises:
        ValueError: see `fit`.
    """
    loss = denoising_loss(patches, recipe.sigmas)
    return fit(network, loss, recipe, checkpoint=checkpoint, every=every)


def denoising_loss(patches: Sampler, sigmas: tuple[tuple[float, float, float], ...]) -> Loss:
    """Build the loss of a denoiser for every noise level of the mixture `sigmas`.

    The loss of a patch is its error divided by the error one expects at its noise level, so that
    every level counts alike.
    """

    def loss(network: Network, generator: torch.Generator) -> Tensor:
        clean = patches(generator)
        sigma = _draw_sigma(len(clean), sigmas, generator)
        noise = torch.randn(clean.shape, generator=generator)
        noisy = (clean + sigma[:, None, None, None] * noise).contiguous(
            memory_format=torch.channels_last
        )
        denoised = network(noisy, sigma)
        return (_error(denoised - clean, sigma) / expected_rmse(sigma)).mean()

    return loss


def _advance(run: Run, loss: Loss, recipe: Recipe) -> Progress:
    """Take one optimiser step."""
    lr = recipe.rate(run.step)
    for group in run.optimiser.param_groups:
        group["lr"] = lr

    device = next(run.network.parameters()).device.type

    def network(*inputs: object) -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=recipe.bfloat16):
            return run.network(*inputs)

    value = loss(network, run.generator)
    run.optimiser.zero_grad(set_to_none=True)
    value.backward()
    nn.utils.clip_grad_norm_(run.network.parameters(), recipe.clip)
    run.optimiser.step()
    run.step += 1
    decay = min(recipe.ema, (1 + run.step) / (10 + run.step))
    for name, parameter in run.network.named_parameters():
        run.average[name].lerp_(parameter.detach(), 1 - decay)
    return Progress(run.step, float(value.detach()), lr)


def _error(residual: Tensor, sigma: Tensor) -> Tensor:
    """Error of every patch `(B,)`.

    Mean absolute error at low noise: it trains faster, and there the posterior is so narrow that
    its median is its mean. Root mean square above, where the two differ and the score is a mean.
    """
    absolute = residual.abs().flatten(1).mean(1)
    rms = residual.square().flatten(1).mean(1).add(1e-12).sqrt()
    return torch.where(sigma < 0.3, absolute, rms)


def expected_rmse(sigma: Tensor) -> Tensor:
    """Error of a fair denoiser of photographs in [0, 1] at noise level `sigma`, roughly."""
    return 1 / (1 / sigma + 1 / (0.11 * sigma.sqrt()))


def _draw_sigma(
    count: int, parts: tuple[tuple[float, float, float], ...], generator: torch.Generator
) -> Tensor:
    """Draw `count` noise levels from the mixture of log-uniform parts."""
    weights, low, high = torch.tensor(parts, dtype=torch.float32).T
    part = torch.multinomial(weights, count, replacement=True, generator=generator)
    u = torch.rand(count, generator=generator)
    return low[part] * (high[part] / low[part]) ** u
