"""Semi-discrete optimal transport from noise to references."""

import pytest
import torch
from flows import lam_grid
from torch import Tensor

from restore.samplers import dpm_ot
from restore.samplers.ddim import DDIM
from restore.samplers.dpm_ot import Transport

F64 = torch.float64


def uniform(count: int, generator: torch.Generator) -> Tensor:
    return torch.rand(count, 1, generator=generator, dtype=F64)


def line(seed: int) -> tuple[Tensor, Transport]:
    """Eight sorted targets of uniform noise on [0, 1], and what was fitted."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randn(8, generator=generator, dtype=F64).sort().values
    return y, dpm_ot.fit(y.reshape(8, 1, 1, 1), generator, source=uniform)


@pytest.mark.parametrize("seed", [0, 1])
def test_one_dimension_is_known_in_closed_form(seed):
    y, transport = line(seed)
    # cells are [(i - 1) / n, i / n]: neighbouring planes meet at z = i / n
    known = -y.diff() * torch.arange(1, 8) / 8
    cuts = -transport.potentials.diff() / y.diff()
    masses = torch.cat([cuts.new_zeros(1), cuts, cuts.new_ones(1)]).diff()
    # averaged over 500 steps of 4096 draws, a mass errs by sqrt(7 / 2e6), 0.2% of it
    assert float((8 * masses - 1).abs().max()) < 0.02
    assert float((transport.potentials.diff() - known).abs().max()) < 0.02 * float(y.diff().max())


def test_assignment_is_monotone():
    y, transport = line(2)
    z = torch.linspace(0, 1, 1001, dtype=F64).reshape(-1, 1, 1, 1)
    assert bool((transport.assign(z).diff() >= 0).all())
    assert torch.equal(transport.start(z).flatten(), y[transport.assign(z)])


def test_cells_of_images_are_of_equal_mass_where_nearest_images_are_not():
    generator = torch.Generator().manual_seed(3)
    images = 0.5 + torch.randn(12, 1, 6, 6, generator=generator, dtype=F64) * 0.3
    images[:4] *= 0.3  # of smaller norm, so that plain inner products favour the others
    transport = dpm_ot.fit(images, generator)
    z = torch.randn(100_000, 1, 6, 6, generator=generator, dtype=F64)
    # of 100 000 draws a mass 1/12 errs by 1.05%, the largest of twelve by three times that
    assert float((12 * transport.masses(z) - 1).abs().max()) < 0.045
    plain = Transport(images, torch.zeros(12, dtype=F64))
    assert float((12 * plain.masses(z) - 1).abs().max()) > 0.3


def test_the_tail_is_an_ordinary_sampler_from_noisy_references():
    generator, grid = torch.Generator().manual_seed(4), lam_grid(12)
    references = torch.randn(5, 1, 4, 4, generator=generator, dtype=F64)
    latents = dpm_ot.noised(references, grid[0], generator)
    transport = dpm_ot.fit(latents, generator, steps=200)
    z = torch.randn(40, 1, 4, 4, generator=generator, dtype=F64)
    denoise = lambda y, s: y / (1 + s**2)  # noqa: E731
    images = transport(denoise, z, grid, DDIM())
    assert torch.equal(images, DDIM()(denoise, latents[transport.assign(z)], grid))
    assert len(images.unique(dim=0)) == 5  # never more than references


def test_too_few_references_are_refused():
    one = torch.ones(1, 1, 2, 2, dtype=F64)
    for images in (one, one.expand(3, 1, 2, 2)):
        with pytest.raises(ValueError, match="two or more different references"):
            dpm_ot.fit(images, torch.Generator().manual_seed(0))
