"""One paper, one file: solvers that need no training and take any operator they can use.

`available()` is the table behind `restore solvers` and `restore.solve(solver="...")`.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from restore.solver import Solver

DEFAULT = "moment-ladder"


def available() -> dict[str, type["Solver"]]:
    """Name -> class of every solver, the default first."""
    from restore.solvers.daps import DAPS
    from restore.solvers.ddnm import DDNM
    from restore.solvers.ddrm import DDRM
    from restore.solvers.dds import DDS
    from restore.solvers.dds2m import DDS2M
    from restore.solvers.diffpir import DiffPIR
    from restore.solvers.diffusion_mbir import DiffusionMBIR
    from restore.solvers.dps import DPS
    from restore.solvers.eigen import Eigen
    from restore.solvers.fasthyde import FastHyDe
    from restore.solvers.flowchef import FlowChef
    from restore.solvers.mmps import MMPS
    from restore.solvers.moment_ladder import MomentLadder
    from restore.solvers.pigdm import PiGDM
    from restore.solvers.posterior_mean import PosteriorMean
    from restore.solvers.psld import PSLD
    from restore.solvers.red_diff import REDDiff
    from restore.solvers.replacement import Replacement
    from restore.solvers.stsl import STSL
    from restore.solvers.twisted_smc import TwistedSMC
    from restore.solvers.vs2m import FitVS2M

    solvers = (
        MomentLadder,
        MMPS,
        TwistedSMC,
        REDDiff,
        DiffPIR,
        DPS,
        PiGDM,
        DAPS,
        DDRM,
        DDNM,
        PosteriorMean,
        DDS,
        DiffusionMBIR,
        PSLD,
        STSL,
        FlowChef,
        Replacement,
        Eigen,
        FastHyDe,
        DDS2M,
        FitVS2M,
    )
    return {solver.name: solver for solver in solvers}


def for_images() -> dict[str, type["Solver"]]:
    """Those of `available` that are not made for volumes or cubes: what benches of images run."""
    return {name: solver for name, solver in available().items() if solver.restores == "images"}
