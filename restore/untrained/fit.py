"""Networks that are fitted step by step, and the running average of what they draw.

A cube has a network of its own, so that it comes out the same whatever the batch around it. Their
losses are added: no weight feels another cube. Weights, Adam's moments and the average live in
`Problem.state`, so that a killed run goes on.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from restore.problem import Problem
from restore.untrained.network import VS2M, Widths


class Fit:
    """Networks at work on one chunk.

    Args:
        problem: the chunk; cubes `(N, C, H, W)`.
        ranks: R of every image, B of them.
        widths: sizes of the networks.
        lr: step size of Adam.
        decay: of the average, at every step.
        beta: weight of the squared differences between neighbours in the loss.
    """

    def __init__(
        self,
        problem: Problem,
        ranks: Sequence[int],
        *,
        widths: Widths,
        lr: float,
        decay: float,
        beta: float,
    ) -> None:
        self.problem, self.decay, self.beta = problem, decay, beta
        self.low = problem.middle - problem.scale
        self.high = problem.middle + problem.scale
        nets = []
        for generator in problem.streams:
            # the images of a sample share its stream, whatever their ranks
            seed = 0 if problem.state else int(torch.randint(2**62, (), generator=generator))
            for rank in ranks:
                own = torch.Generator().manual_seed(seed)
                nets.append(VS2M(problem.shape[1:], rank, own, widths).to(problem.y))
        self.nets = nn.ModuleList(nets)
        self.adam = torch.optim.Adam(self.nets.parameters(), lr=lr, fused=True)
        self.average: Tensor | None = None
        if problem.state:
            self._resume()

    def step(self, residual: Callable[[Tensor], Tensor], start: Callable[[], Tensor]) -> Tensor:
        """Descend the squared residual by one step of Adam.

        Args:
            residual: of the cubes drawn `(N, C, H, W)`; images first.
            start: what the average starts from.

        Returns:
            The average `(N, C, H, W)`, held to the range of images; the caller may keep it.
        """
        with torch.enable_grad():
            x = torch.stack([net() for net in self.nets])
            unit = residual(x) / self.problem.scale  # the paper's, of images in [-1, 1]
            loss = unit.square().flatten(1).mean(1).sum()
            if self.beta:
                loss = loss + self.beta * roughness(x / self.problem.scale).sum()
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        self.problem.count.forwards += 1
        self.problem.count.vjps += 1
        if self.average is None:
            self.average = start().clamp(self.low, self.high)
        self.average = self.average.lerp(x.detach(), 1 - self.decay).clamp_(self.low, self.high)
        self._keep(self.average)
        return self.average

    def _keep(self, average: Tensor) -> None:
        moments = [self.adam.state[p] for p in self.nets.parameters()]
        self.problem.state.update(
            average=[average],
            networks=list(self.nets.state_dict().values()),
            first=[m["exp_avg"] for m in moments],
            second=[m["exp_avg_sq"] for m in moments],
        )

    def _resume(self) -> None:
        state, steps = self.problem.state, torch.tensor(float(self.problem.done))
        (self.average,) = state["average"]
        names = self.nets.state_dict().keys()
        self.nets.load_state_dict(dict(zip(names, state["networks"], strict=True)))
        moments = zip(state["first"], state["second"], strict=True)
        for p, (m, v) in zip(self.nets.parameters(), moments, strict=True):
            self.adam.state[p] = {"step": steps.clone(), "exp_avg": m, "exp_avg_sq": v}


def roughness(x: Tensor) -> Tensor:
    """Squared differences between neighbours of cubes `(N, C, H, W)`: `(N,)`.

    As in the released code: twice the means over rows and over columns, once that over bands.
    """
    weights = {1: 1.0, 2: 2.0, 3: 2.0}
    terms = [w * x.diff(dim=d).square().flatten(1).mean(1) for d, w in weights.items()]
    return torch.stack(terms).sum(0)
