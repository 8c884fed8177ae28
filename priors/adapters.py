"""Other people's networks as priors: deepinv, diffusers, MONAI.

A diffusion network lives in its own variables: images on `[low, high]`, a time step instead of a
noise level, and a prediction that need not be the image. With `x' = scale x + shift` the map from
the user's range to the network's (scale 2 from [0, 1] to [-1, 1]), noise of standard deviation
`sigma` becomes noise of `s = scale sigma`, and

    t    = schedule.time(s)                     the step at which the network saw that level
    x_t  = alpha_t x'                           the image it saw there
    D'   = to_x0(kind, network(x_t, t), ...)    its estimate of the clean image
    D    = (D' - shift) / scale.

Nothing is clipped. `Adapter` is this computation; the `from_*` functions fill in its fields.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from priors.denoiser import Card, Denoiser, per_image
from priors.predictions import check_kind, to_x0
from priors.schedules import EDM, Discrete, Schedule

Range = tuple[float, float]
Call = Callable[[nn.Module, Tensor, Tensor], Tensor]

# the words of diffusers and MONAI for what `predictions` calls eps, v and x0
_KIND = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
_BETAS = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
)


class Adapter(Denoiser):
    """A network in its own variables, seen as `D(x, sigma)` in the user's.

    Below the schedule's lowest level `s_0` the network is asked at `s_0` and its score kept:
    `D' = x' + (s / s_0)^2 (D'(x', s_0) - x')`, which meets the network at `s_0` and `x` at zero.

    Attributes:
        card: see `Card`; `card.value_range` is the user's range.
        network: the wrapped module, put in `eval()` mode and otherwise untouched; it is called in
            its own dtype.
        schedule: which `(alpha_t, sigma_t)` it was trained with.
        kind: what it predicts, see `predictions.KINDS`.
        value_range: range of clean images in training.
        fractional: whether it takes times between steps; if not, the nearest step is used.
        multiple: spatial sizes must be multiples of this (a U-Net halves the image).
        call: `(network, x_t, t) -> prediction`, with `x_t` `(B, C, *spatial)` and `t` `(B,)`.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        kind: str,
        *,
        card: Card,
        value_range: Range = (-1.0, 1.0),
        fractional: bool = True,
        multiple: int = 1,
        call: Call | None = None,
    ) -> None:
        super().__init__(card)
        check_kind(kind)
        self.network = network.eval()
        self.schedule, self.kind, self.value_range = schedule, kind, value_range
        self.fractional, self.multiple = fractional, multiple
        self.call = _plain if call is None else call
        self.scale = _scale(value_range, card.value_range)
        self.shift = value_range[0] - self.scale * card.value_range[0]

    def forward(self, x: Tensor, sigma: float | Tensor, **kwargs: object) -> Tensor:
        """Denoise; see `Denoiser.forward`.

        Raises:
            ValueError: if `sigma` is negative, not a number, or above the schedule's highest level.
        """
        level = self._level(sigma)
        lowest, highest = self.schedule.level_range
        t = self.schedule.time(level.clamp(lowest, highest))
        t = t if self.fractional else t.round()
        alpha, sigma_t = self.schedule.alpha(t), self.schedule.sigma(t)

        x_net = self.scale * x + self.shift
        x_t = per_image(alpha, x) * x_net
        x0 = to_x0(self.kind, self._predict(x_t, t), x_t, alpha, sigma_t)
        if bool((level < lowest).any()):
            x0 = x_net + per_image((level / lowest).clamp(max=1) ** 2, x) * (x0 - x_net)
        return (x0 - self.shift) / self.scale

    def refuse(self, shape: tuple[int, ...]) -> str | None:
        """Say in one sentence why images of `shape` do not suit this network."""
        if any(n % self.multiple for n in shape[2:]):
            return (
                f"prior '{self.card.name}' needs sides that are multiples of {self.multiple}, "
                f"found {tuple(shape[2:])}; crop or pad the image."
            )
        return super().refuse(shape)

    def _level(self, sigma: float | Tensor) -> Tensor:
        """Noise level in the network's units, `(1,)` or `(B,)`, on the CPU in float64."""
        level = self.scale * torch.as_tensor(sigma, dtype=torch.float64, device="cpu")
        level = level.flatten(1)[:, 0] if level.ndim > 1 else level.reshape(-1)
        highest = self.schedule.level_range[1]
        # a float32 copy of the highest level may round upwards
        if not bool(((level >= 0) & (level <= highest * (1 + 1e-6))).all()):
            low, high = float(level.min()) / self.scale, float(level.max()) / self.scale
            raise ValueError(
                f"prior '{self.card.name}' knows noise levels from 0 to {highest / self.scale:.4g},"
                f" found sigma from {low:.4g} to {high:.4g}; choose sigma in that range."
            )
        return level

    def _predict(self, x_t: Tensor, t: Tensor) -> Tensor:
        dtype = next(
            (p.dtype for p in self.network.parameters() if p.is_floating_point()), x_t.dtype
        )
        # step 999.5 is not a half-precision number
        t_dtype = torch.promote_types(dtype, torch.float32) if self.fractional else torch.long
        t = t.expand(len(x_t)).to(x_t.device, t_dtype)
        value = self.call(self.network, x_t.to(dtype), t).to(x_t.dtype)
        channels = x_t.shape[1]
        if value.shape[1] == 2 * channels:  # a learned variance follows the mean
            value = value[:, :channels]
        if value.shape != x_t.shape:
            raise ValueError(
                f"the network of prior '{self.card.name}' returned shape {tuple(value.shape)} for "
                f"an input of shape {tuple(x_t.shape)}; expected the same shape."
            )
        return value


def from_deepinv(
    model: nn.Module, *, card: Card | None = None, value_range: Range = (0.0, 1.0)
) -> Adapter:
    """Wrap a deepinv denoiser, called as `model(x, sigma)` and returning the clean image.

    Args:
        model: the denoiser; put in `eval()` mode.
        card: what to tell the user; by default only the class name is known.
        value_range: range of clean images it was trained on; `sigma` is passed in its units.

    Returns:
        The prior, for images in `card.value_range`.
    """
    card = card or Card(name=type(model).__name__, description="a deepinv denoiser")
    return Adapter(model, EDM(), "x0", card=card, value_range=value_range, call=_deepinv)


def from_diffusers(
    unet: nn.Module,
    scheduler_config: Mapping[str, Any],
    *,
    card: Card | None = None,
    value_range: Range = (-1.0, 1.0),
    fractional: bool = True,
) -> Adapter:
    """Wrap a diffusers `UNet2DModel` trained with a DDPM-type scheduler.

    Args:
        unet: called as `unet(x_t, t, return_dict=False)[0]`; put in `eval()` mode.
        scheduler_config: the `config` of a DDPM, DDIM, PNDM, DPM-Solver, ... scheduler: its betas
            give the noise levels, its `prediction_type` what the network predicts.
        card: what to tell the user; by default read from the network.
        value_range: range of clean images in training.
        fractional: give the network times between steps; False rounds to the nearest step.

    Returns:
        The prior, for images in `card.value_range`.

    Raises:
        ValueError: if the configuration has no beta schedule or names an unknown one, or an unknown
            prediction type.
    """
    schedule = Discrete(_alphas_cumprod(scheduler_config))
    config = getattr(unet, "config", {})
    halvings = len(config.get("block_out_channels", (0,))) - 1
    card = card or _card(unet, schedule, value_range, config.get("in_channels"), 2)
    return Adapter(
        unet,
        schedule,
        _kind(scheduler_config.get("prediction_type", "epsilon")),
        card=card,
        value_range=value_range,
        fractional=fractional,
        multiple=2**halvings,
        call=_diffusers,
    )


def from_monai(
    unet: nn.Module,
    scheduler: Any,
    *,
    value_range: Range,
    card: Card | None = None,
    fractional: bool = True,
) -> Adapter:
    """Wrap a MONAI `DiffusionModelUNet` trained with a DDPM, DDIM or PNDM scheduler.

    Args:
        unet: called as `unet(x_t, timesteps=t)`; put in `eval()` mode.
        scheduler: the MONAI scheduler: `alphas_cumprod` and `prediction_type` are read from it.
        value_range: range of clean images in training. There is no safe default: MONAI's tutorials
            train on (0, 1), most papers on (-1, 1); `diagnostics.sigma_check` shows a wrong one.
        card: what to tell the user; by default read from the network.
        fractional: give the network times between steps; False rounds to the nearest step.

    Returns:
        The prior, for images or volumes in `card.value_range`.

    Raises:
        ValueError: if the scheduler has no `alphas_cumprod` or an unknown prediction type.
    """
    if not hasattr(scheduler, "alphas_cumprod"):
        raise ValueError(
            f"scheduler {type(scheduler).__name__} has no alphas_cumprod, expected a DDPM, DDIM or "
            "PNDM scheduler; for another diffusion build an Adapter with its own schedule."
        )
    schedule = Discrete(_table(scheduler.alphas_cumprod))
    weight = next((p for p in unet.parameters() if p.ndim > 3), None)
    spatial_dims = None if weight is None else weight.ndim - 2
    halvings = len(getattr(unet, "block_out_channels", (0,))) - 1
    channels = getattr(unet, "in_channels", None)
    card = card or _card(unet, schedule, value_range, channels, spatial_dims)
    return Adapter(
        unet,
        schedule,
        _kind(scheduler.prediction_type),
        card=card,
        value_range=value_range,
        fractional=fractional,
        multiple=2**halvings,
        call=_monai,
    )


def _alphas_cumprod(config: Mapping[str, Any]) -> tuple[float, ...]:
    if config.get("beta_schedule") is None and config.get("trained_betas") is None:
        raise ValueError(
            f"the configuration of {config.get('_class_name', 'the scheduler')} has no "
            "beta_schedule, expected a DDPM-type scheduler; for another diffusion build an Adapter "
            "with its own schedule."
        )
    from diffusers import DDPMScheduler

    try:
        scheduler = DDPMScheduler(**{key: config[key] for key in _BETAS if key in config})
    except NotImplementedError:
        raise ValueError(
            f"diffusers has no beta_schedule '{config['beta_schedule']}', expected linear, "
            "scaled_linear, squaredcos_cap_v2, laplace or sigmoid; correct the configuration."
        ) from None
    return _table(scheduler.alphas_cumprod)


def _table(alphas_cumprod: Tensor) -> tuple[float, ...]:
    # a last step of pure noise (zero terminal SNR) has no finite level
    return tuple(value for value in alphas_cumprod.double().tolist() if value > 0)


def _kind(prediction_type: str) -> str:
    if str(prediction_type) not in _KIND:
        raise ValueError(
            f"unknown prediction_type '{prediction_type}', expected one of {', '.join(_KIND)}; "
            "correct the scheduler's configuration."
        )
    return _KIND[str(prediction_type)]


def _card(
    network: nn.Module,
    schedule: Schedule,
    value_range: Range,
    channels: int | None,
    spatial_dims: int | None,
) -> Card:
    low, high = schedule.level_range
    scale = _scale(value_range, (0.0, 1.0))
    return Card(
        name=type(network).__name__,
        channels=channels,
        spatial_dims=spatial_dims,
        sigma_range=(low / scale, high / scale),
        description=f"a {type(network).__name__} behind an adapter",
    )


def _scale(network: Range, user: Range) -> float:
    if not (network[1] > network[0] and user[1] > user[0]):
        raise ValueError(
            f"value ranges must be (low, high) with low < high, found {network} for the network "
            f"and {user} for the images; correct these."
        )
    return (network[1] - network[0]) / (user[1] - user[0])


# named functions, not lambdas, so that a prior can be pickled to other processes
def _plain(network: nn.Module, x_t: Tensor, t: Tensor) -> Tensor:
    return network(x_t, t)


def _deepinv(network: nn.Module, x_t: Tensor, t: Tensor) -> Tensor:
    return network(x_t, t.to(x_t.dtype))


def _diffusers(network: nn.Module, x_t: Tensor, t: Tensor) -> Tensor:
    return network(x_t, t, return_dict=False)[0]


def _monai(network: nn.Module, x_t: Tensor, t: Tensor) -> Tensor:
    return network(x_t, timesteps=t)
