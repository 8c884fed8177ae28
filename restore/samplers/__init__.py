"""One integrator, one file: from noise to image in few network calls.

`available()` is the table behind `restore samplers` and every option named `sampler`.
"""

from typing import TYPE_CHECKING

from operators.words import nearest

if TYPE_CHECKING:
    from restore.samplers.sampler import Sampler


def available() -> dict[str, "Sampler"]:
    """Name -> sampler with its paper's constants."""
    from restore.samplers.adams import Adams
    from restore.samplers.adaptive import DPMSolverAdaptive
    from restore.samplers.bdia import BDIA
    from restore.samplers.ddim import DDIM
    from restore.samplers.deis import DEIS
    from restore.samplers.dpm_solver import DPMSolver, DPMSolverFast
    from restore.samplers.dpm_solver_pp import DPMSolverPP2S, DPMSolverPPM, SDEDPMSolverPP
    from restore.samplers.gaussian_adams import GaussianAdams
    from restore.samplers.heun import EDMStochastic, Heun
    from restore.samplers.momentum import GHVB, HeavyBall
    from restore.samplers.mr_sampler import MRSamplerSDE
    from restore.samplers.pndm import PNDM
    from restore.samplers.predictor_corrector import PredictorCorrector
    from restore.samplers.rk45 import RK45
    from restore.samplers.runge_kutta import RungeKutta
    from restore.samplers.time_shift import TimeShift

    return {
        "ddim": DDIM(),
        "ancestral": DDIM(eta=1.0),
        "dpm-solver-2": DPMSolver(k=2),
        "dpm-solver-3": DPMSolver(k=3),
        "dpm-solver-fast": DPMSolverFast(),
        "dpm-solver-adaptive": DPMSolverAdaptive(),
        "dpm++-2s": DPMSolverPP2S(),
        "dpm++-2m": DPMSolverPPM(k=2),
        "dpm++-3m": DPMSolverPPM(k=3),
        "dpm++-sde-1": SDEDPMSolverPP(k=1),
        "dpm++-sde-2m": SDEDPMSolverPP(k=2),
        "mr-sde-2": MRSamplerSDE(k=2),
        "adams-2": Adams(k=2),
        "adams-3": Adams(k=3),
        "gaussian-adams-2": GaussianAdams(k=2),
        "gaussian-adams-3": GaussianAdams(k=3),
        "deis-1": DEIS(degree=1),
        "deis-2": DEIS(degree=2),
        "deis-3": DEIS(degree=3),
        "pndm": PNDM(),
        "plms": PNDM(start="plms"),
        "heun": Heun(),
        "edm-stochastic": EDMStochastic(),
        "predictor-corrector": PredictorCorrector(),
        "rk45": RK45(),
        "rk4": RungeKutta(),
        "bdia": BDIA(),
        "heavy-ball": HeavyBall(),
        "ghvb-1.8": GHVB(),
        "ghvb-2.8": GHVB(label=2.8),
        "time-shift": TimeShift(),
    }


def named(name: str) -> "Sampler":
    """Return the sampler of a name.

    Raises:
        ValueError: unknown name, telling the nearest.
    """
    known = available()
    if name not in known:
        raise ValueError(f"unknown sampler '{name}'; {nearest(name, list(known))}")
    return known[name]
