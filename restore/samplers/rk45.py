"""The probability flow by an adaptive Runge-Kutta rule: the reference without a closed form.

Song et al. 2021, arXiv:2011.13456, section 4.3 and appendix D.4; rules of Dormand and Prince 1980
(RK45) and Hairer, Norsett and Wanner 1993 (DOP853), as `scipy.integrate.solve_ivp` has them.

The flow is solved in `log(sigma / alpha)`, in the frame of `restore.samplers.runge_kutta`, where
images have a standard deviation of about one at every level and a tolerance means the same at all.
The solver works in float64 on the CPU, one image at a time; the denoiser sees the dtype and device
of its image. Networks in float32 are not smooth below some 1e-6: less tolerance only costs calls.

Cost: six calls (RK45) or some twelve (DOP853) an attempted step; how many is not known before.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from operators.validate import one_of
from restore.samplers.adaptive import Adaptive
from restore.samplers.grid import Point
from restore.samplers.runge_kutta import Frame
from restore.samplers.sampler import Path

METHODS = ("RK45", "DOP853")


@dataclass(frozen=True, kw_only=True)
class RK45(Adaptive):
    """The probability flow to a tolerance; see the module's docstring.

    Args:
        method: "RK45" or "DOP853"; the latter for tolerances below 1e-6.
        rtol: relative tolerance of a step.
        atol: absolute tolerance of a step, in standard deviations.
        mean: rough mean of the images; of numbers spread evenly over [0, 1] by default.
        variance: rough variance of a pixel, positive, likewise.
    """

    name: ClassVar[str] = "rk45"
    paper: ClassVar[str] = "Song et al. 2021, score SDE, appendix D.4"
    order: ClassVar[str] = "by tolerance"

    method: str = "RK45"
    rtol: float = 1e-5
    atol: float = 1e-5
    mean: float = 0.5
    variance: float = 1 / 12

    def __post_init__(self) -> None:
        one_of("method", self.method, METHODS)
        if not (self.rtol >= 1e-13 and self.atol > 0 and self.variance > 0):
            raise ValueError(
                "rk45 needs rtol >= 1e-13, atol > 0 and variance > 0, found "
                f"rtol={self.rtol}, atol={self.atol}, variance={self.variance}; correct these."
            )

    def alone(self, path: Path, x: Tensor) -> Iterator[Tensor]:
        """Solve from the first point to the last.

        Raises:
            ValueError: when no step is short enough.
        """
        frame, grid = Frame(self.mean, self.variance), path.grid
        refusal = (
            f"'{self.name}' found no step short enough; the denoiser is not finite or not smooth, "
            "or the tolerances are too small for its dtype."
        )

        def leave(z: np.ndarray, s: float) -> Tensor:
            return frame.leave(torch.from_numpy(z.reshape(x.shape)), s).to(x)

        def velocity(tau: float, z: np.ndarray) -> np.ndarray:
            s = math.exp(tau)
            y = leave(z, s)
            slope = _array(frame.velocity(y, path.D(y, Point(s, 1.0, s)), s))
            if not np.isfinite(slope).all():
                raise ValueError(refusal)
            return slope

        taus = [-p.lam for p in grid.points]
        solved = solve_ivp(
            velocity,
            (taus[0], taus[-1]),
            _array(frame.enter(x / grid[0].alpha, grid[0].level)),
            method=self.method,
            t_eval=taus[1:],
            rtol=self.rtol,
            atol=self.atol,
        )
        if not solved.success:
            raise ValueError(refusal)
        for point, z in zip(grid.points[1:], solved.y.T, strict=True):
            yield point.alpha * leave(z, point.level)


def _array(x: Tensor) -> np.ndarray:
    return x.detach().double().cpu().numpy().ravel()
