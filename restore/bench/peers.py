"""The posterior samplers of other libraries, called as ours are, for the bench.

    deepinv   DPS, PiGDM, MMPS, DDRM, DiffPIR
    azula     DPS, PGDM, MMPS, TMPD, DiffPIR, TDS

Each runs with its own defaults, and with every setting of a stated grid, of which the bench keeps
the best, chosen on the truth: more than any user could do. Both libraries work on images in
[-1, 1]; deepinv maps them itself, for azula it is done here. The exact denoiser is the same as
ours, and so is the measurement.

What is adjusted, so that a library is not blamed for the bench: deepinv's seed is never 0, which it
takes for none; DDRM gets its own copy of `y`, which it changes; azula's DPS divides by the norm
over the whole batch, so that its zeta is multiplied by the root of the number of samples.
"""

import importlib.util
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from deepinv.physics import Physics
from torch import Tensor

from priors import Denoiser
from restore.problem import Count
from restore.result import Cost, Result

Settings = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Peer:
    """One method of one library at one setting.

    Attributes:
        library: "deepinv" or "azula".
        method: its name there.
        settings: what differs from the library's defaults.
    """

    library: str
    method: str
    settings: Settings = ()

    @property
    def name(self) -> str:
        """Shown in tables."""
        return f"{self.library} {self.method}"

    def refuses(self, operator: Physics) -> bool:
        """Whether the method cannot take this operator."""
        from deepinv.physics import DecomposablePhysics

        return (self.library, self.method) == ("deepinv", "DDRM") and not isinstance(
            operator, DecomposablePhysics
        )

    def __call__(
        self, y: Tensor, operator: Physics, prior: Denoiser, *, samples: int, seed: int
    ) -> Result:
        """Draw samples for one measurement `y` `(1, ...)`."""
        counted = Counted(prior)
        started = time.perf_counter()
        with torch.random.fork_rng():
            torch.manual_seed(seed + 1)
            run = {"deepinv": _deepinv, "azula": _azula}[self.library]
            drawn = run(self.method, y, operator, counted, samples, seed + 1, dict(self.settings))
        finite = bool(drawn.isfinite().all())
        return Result(
            samples=drawn.detach().double()[:, None],
            misfit=torch.full((1,), math.nan),
            status="ok" if finite else "diverged",
            remedy="",
            cost=Cost(
                forwards=counted.count.forwards,
                vjps=counted.count.vjps,
                seconds=time.perf_counter() - started,
                peak_memory=0,
            ),
        )


GRID: dict[tuple[str, str], list[dict[str, Any]]] = {
    ("deepinv", "DPS"): [{"weight": w} for w in (30.0, 100.0, 300.0)]
    + [{"guidance": "annealed", "weight": w} for w in (0.3, 1.0)],
    ("deepinv", "PiGDM"): [{"weight": w} for w in (0.3, 3.0)],
    ("deepinv", "MMPS"): [{"cg_max_iter": k} for k in (10, 30)],
    ("deepinv", "DDRM"): [{"eta": e, "etab": b} for e in (0.0, 0.5, 1.0) for b in (0.5, 1.0)],
    ("deepinv", "DiffPIR"): [{"lambda_": a, "zeta": z} for a in (1.0, 3.0) for z in (0.1, 0.5)],
    ("azula", "DPS"): [{"zeta": z} for z in (0.1, 0.3, 3.0)],
    ("azula", "PGDM"): [{"eta": 1.0}],
    ("azula", "MMPS"): [{"iterations": k} for k in (3, 10)],
    ("azula", "TMPD"): [{"eta": 1.0}],
    ("azula", "DiffPIR"): [{"lmbda": a, "eta": 1.0} for a in (1.0, 3.0)],
    ("azula", "TDS"): [{"variance": v} for v in (0.1, 1.0)],
}


def available() -> list[Peer]:
    """Every method of the libraries that are installed, at its defaults."""
    return [Peer(*key) for key in GRID if importlib.util.find_spec(key[0]) is not None]


def settings_of(peer: Peer) -> list[Peer]:
    """The defaults and every other setting of the grid."""
    grid = GRID[peer.library, peer.method]
    return [peer, *(Peer(peer.library, peer.method, tuple(setting.items())) for setting in grid)]


class Counted(Denoiser):
    """A denoiser that counts its forwards and the backward passes through them."""

    def __init__(self, prior: Denoiser) -> None:
        super().__init__(prior.card)
        self.prior = prior
        self.count = Count()

    def forward(self, x: Tensor, sigma: float | Tensor, **kwargs: object) -> Tensor:
        """Denoise."""
        self.count.forwards += 1
        out = self.prior(x, sigma)
        if out.requires_grad:
            out.register_hook(self._backward)
        return out

    def _backward(self, _: Tensor) -> None:
        self.count.vjps += 1


def _deepinv(
    method: str,
    y: Tensor,
    operator: Physics,
    prior: Denoiser,
    samples: int,
    seed: int,
    settings: dict[str, Any],
) -> Tensor:
    from deepinv import sampling
    from deepinv.optim.data_fidelity import L2

    y = y.float().repeat(samples, *[1] * (y.ndim - 1))
    operator = operator.clone().to(torch.float32)
    shape = (samples, *(prior.card.image_shape or ()))
    if method == "DPS":
        solver = sampling.DPS(prior, rng=torch.Generator(), dtype=torch.float32, **settings)
        return solver(y, operator, x_init=shape, seed=seed)
    if method == "DDRM":
        return sampling.DDRM(prior, **settings)(y.clone(), operator, seed=seed)
    if method == "DiffPIR":
        sigma = float(torch.as_tensor(operator.noise_model.sigma).max())
        start = torch.full(shape, 0.5)
        solver = sampling.DiffPIR(prior, L2(), sigma=sigma, **settings)
        return solver(y, operator, seed=seed, x_init=start)
    fidelity = {
        "PiGDM": sampling.PiGDMDataFidelity,
        "MMPS": sampling.MomentMatchingDataFidelity,
    }[method](**settings)
    euler = sampling.EulerSolver(
        timesteps=torch.linspace(1, 0.001, 200), rng=torch.Generator().manual_seed(seed)
    )
    model = sampling.PosteriorDiffusion(
        fidelity,
        prior,
        sde=sampling.VariancePreservingDiffusion(alpha=0.5, dtype=torch.float32),
        solver=euler,
        dtype=torch.float32,
    )
    return model(y, operator, x_init=shape, seed=seed)


def _azula(
    method: str,
    y: Tensor,
    operator: Physics,
    prior: Denoiser,
    samples: int,
    seed: int,
    settings: dict[str, Any],
) -> Tensor:
    from azula import denoise, guidance, noise, sample
    from azula.linalg.covariance import IsotropicCovariance

    shape = tuple(prior.card.image_shape or ())

    class Exact(denoise.Denoiser):
        """Our denoiser behind azula's schedule, for flat images in [-1, 1]."""

        schedule = noise.VPSchedule()

        def forward(self, x_t: Tensor, t: Tensor, **_: object) -> denoise.DiracPosterior:
            alpha, sigma = self.schedule(t)
            half = prior((x_t / alpha + 1).reshape(-1, *shape) / 2, float(sigma / alpha) / 2)
            return denoise.DiracPosterior(mean=2 * half.flatten(1) - 1)

    def A(x: Tensor) -> Tensor:  # linear: azula applies it to directions too
        return operator.A(x.reshape(-1, *shape) / 2).flatten(1)

    def A_inverse(v: Tensor) -> Tensor:
        return 2 * operator.A_dagger(v.reshape(-1, *y.shape[1:])).flatten(1)

    exact, sigma_y = Exact(), float(torch.as_tensor(operator.noise_model.sigma).max())
    y = y - operator.A(torch.full((1, *shape), 0.5, dtype=y.dtype))  # of the middle of the range
    many = y.flatten(1).repeat(samples, 1)
    common = {"steps": 200, "silent": True, "dtype": torch.float64}
    eta = {"eta": settings.pop("eta")} if "eta" in settings else {}
    if method == "DPS":
        zeta = settings.pop("zeta", 1.0) * math.sqrt(samples)
        sampler: Any = guidance.DPSSampler(exact, many, A, zeta=zeta, **common)
    elif method == "PGDM":
        sampler = guidance.PGDMSampler(exact, many, A, A_inverse, **eta, **common)
    elif method == "TDS":
        variance = settings.pop("variance", 0.25)

        def twist(x: Tensor, level: Any = None) -> Tensor:  # azula declares one argument
            spread = sigma_y**2 + variance * level**2 / (1 + level**2) / 4
            return -(A(x) - many).square().sum(1) / (2 * spread)

        sampler = guidance.TDSSampler(exact, twist, **common)
    else:
        guided: Callable[[], Any] = {
            "MMPS": lambda: guidance.MMPSDenoiser(
                exact, many, A, IsotropicCovariance(torch.tensor(sigma_y**2)), **settings
            ),
            "TMPD": lambda: guidance.TMPDenoiser(exact, many, A, sigma_y**2, **settings),
            "DiffPIR": lambda: guidance.DiffPIRDenoiser(exact, many, A, sigma_y**2, **settings),
        }[method]
        sampler = sample.DDIMSampler(guided(), **eta, **common)
    start = sampler.init((samples, math.prod(shape)), dtype=torch.float64)
    return (sampler(start).reshape(-1, *shape) + 1) / 2
