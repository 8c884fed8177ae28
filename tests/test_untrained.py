"""The network of DDS2M: many networks as one, its layout, its capacity; noise and rank."""

import pytest
import torch
from torch.nn import functional as F

import operators
from restore.solvers.vs2m import FitVS2M
from restore.untrained.demand import demand, tell
from restore.untrained.estimates import noise_level, rank
from restore.untrained.fit import roughness
from restore.untrained.network import VS2M, Widths, levels, mix

F64 = torch.float64
SMALL = Widths((4, 4, 6), (8, 8))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_cube_to_maps_and_spectra_and_back():
    """Exact for a cube that is not square, from its singular vectors."""
    x = torch.rand((5, 9, 13), generator=generator(), dtype=F64)
    U, s, Vt = torch.linalg.svd(x.flatten(1), full_matrices=False)
    maps = (s[:, None] * Vt).unflatten(1, (9, 13))
    torch.testing.assert_close(mix(maps, U.T), x, rtol=0, atol=1e-12)
    one = mix(maps[:1], U.T[:1])
    torch.testing.assert_close(one[3], U[3, 0] * maps[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(8, 64, 72), (9, 33, 70), (8, 8, 31)])
def test_networks_side_by_side_are_networks_alone(shape):
    """Slices of the weights in networks of rank 1, with attention and skips where it is large."""
    both = VS2M(shape, 3, generator(), SMALL).to(F64)
    cube = both()
    assert cube.shape == shape
    total = torch.zeros(shape, dtype=F64)
    for r in range(3):
        alone = VS2M(shape, 1, generator(), SMALL).to(F64)
        parts = {
            name: value if name in ("zeta", "xi") else value.chunk(3)[r]
            for name, value in both.state_dict().items()
        }
        alone.load_state_dict(parts)
        total += alone()
    torch.testing.assert_close(cube, total, rtol=0, atol=1e-9)


def test_networks_start_unlike_each_other_and_within_bounds():
    net = VS2M((8, 64, 64), 2, generator(), SMALL)
    first, second = net.maps(net.zeta)
    assert float((first - second).detach().abs().max()) > 1e-3
    weight = net.maps.down[1][1].convolution.layer.weight  # 4 channels, 7 x 7
    bound = (4 * 49) ** -0.5
    assert 0.95 * bound < float(weight.detach().abs().max()) <= bound


@pytest.mark.parametrize(("side", "count"), [(8, 1), (16, 1), (32, 2), (64, 3), (145, 4), (512, 6)])
def test_as_many_levels_as_there_is_room_for(side, count):
    assert levels(side, side + 9) == count


def test_roughness_is_that_of_the_released_code():
    x = torch.rand((1, 4, 5, 6), generator=generator(), dtype=F64)
    rows, columns, bands = (x.diff(dim=d).square().sum() for d in (2, 3, 1))
    expected = 2 * (rows / (4 * 4 * 6) + columns / (4 * 5 * 5) + bands / (3 * 5 * 6) / 2)
    assert float(roughness(x)) == pytest.approx(float(expected))


def low_rank(sigma, shape=(24, 40, 50), components=4):
    g = generator(1)
    spectra = torch.randn((components, shape[0]), generator=g, dtype=F64) / shape[0] ** 0.5
    rough = torch.randn((components, 1, *shape[1:]), generator=g, dtype=F64)
    maps = F.avg_pool2d(rough, 5, 1, 2, count_include_pad=False)[:, 0]
    noise = torch.randn(shape, generator=g, dtype=F64)
    return mix(maps / maps.std() * 2, spectra) + sigma * noise


@pytest.mark.parametrize("sigma", [0.02, 0.1, 0.3])
@pytest.mark.parametrize(("keep", "bandwise"), [(1.0, False), (0.4, False), (0.3, True)])
def test_noise_and_rank_of_a_mixture(sigma, keep, bandwise):
    x = low_rank(sigma)
    places = torch.rand(x.shape if bandwise else x.shape[1:], generator=generator(2)) < keep
    seen = places.expand(x.shape).to(x)
    # 14400 draws of the noise or more, of which the model takes up to 4 (C + n): 0.9 % is one
    # standard deviation
    assert abs(noise_level(x * seen, seen) / sigma - 1) < 0.025
    assert rank(x * seen, seen, sigma) == 4


def test_noise_alone_is_one_component():
    x = 0.1 * torch.randn((24, 30, 30), generator=generator(), dtype=F64)
    assert rank(x, torch.ones_like(x), 0.1) == 1
    # 21600 draws: relative standard deviation 0.5 %
    assert abs(noise_level(x, torch.ones_like(x)) / 0.1 - 1) < 0.02


def test_louder_noise_hides_more():
    x = low_rank(0.05)
    ranks = [rank(x, torch.ones_like(x), sigma) for sigma in (0.05, 0.5, 5.0)]
    assert ranks == sorted(ranks, reverse=True)
    assert ranks[-1] == 1 < ranks[0]


def test_too_little_to_estimate_from():
    x = low_rank(0.1)
    seen = torch.zeros_like(x)
    seen[:, 0, 0] = 1
    with pytest.raises(ValueError, match="24 values in 24 bands"):
        noise_level(x * seen, seen)


def fitted(cube, components, steps, widths, lr):
    net = VS2M(tuple(cube.shape), components, generator(3), widths)
    adam = torch.optim.Adam(net.parameters(), lr=lr)
    for step in range(steps):
        for group in adam.param_groups:  # a decaying step size, to reach the bottom
            group["lr"] = lr * (1 - step / steps) ** 0.5
        adam.zero_grad()
        F.mse_loss(net(), cube).backward()
        adam.step()
    with torch.no_grad():
        return float(-10 * torch.log10(F.mse_loss(net(), cube)))


def bound(cube, components):
    """PSNR of the best sum of so many maps times spectra."""
    s = torch.linalg.svdvals(cube.double().flatten(1))
    return float(-10 * torch.log10(s[components:].square().sum() / cube.numel()))


def test_a_network_can_draw_what_it_must():
    """Better than any cube of one component fewer, and no better than any of as many."""
    rough = low_rank(0.02, shape=(10, 16, 20), components=2).float()
    found = fitted(rough, 2, 400, Widths((8, 8), (32,)), 1e-2)
    assert bound(rough, 1) < found <= bound(rough, 2) + 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("components", [2, 4, 8])
def test_capacity_on_a_real_scene(components):
    """Fitted to the clean cube, three quarters of the networks or more are of use.

    Measured, below the bound of as many components: 0.01, 0.2 and 1.7 dB.
    """
    cubes = pytest.importorskip("restore.bench.cubes")
    (cube,) = cubes.indian_pines(32)
    found = fitted(cube.float(), components, 3000, Widths((16, 32, 64), (64, 128)), 5e-3)
    assert bound(cube, 3 * components // 4) < found <= bound(cube, components) + 1e-3


def test_operations_are_counted_as_they_are_done():
    """By the convolutions' own shapes, twice a multiplication and an addition, thrice a pass."""
    net = VS2M((9, 33, 40), 2, generator(), SMALL)
    total = 0

    def count(layer, _, out):
        nonlocal total
        total += 2 * layer.weight.numel() * out.shape[2] * out.shape[3]

    for layer in net.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(count)
    net()
    total += sum(2 * p.numel() for name, p in net.spectra.named_parameters() if "weight" in name)
    total += 2 * 2 * 9 * 33 * 40  # maps times spectra
    fresh = VS2M((9, 33, 40), 2, generator(), SMALL)
    found = demand(torch.nn.ModuleList([fresh]))
    assert found.operations == 3 * total
    twice = demand(torch.nn.ModuleList([fresh, fresh.requires_grad_()]))
    assert twice.operations == 2 * found.operations
    assert all(p.device.type == "cpu" for p in fresh.parameters())


def test_memory_is_that_of_weights_and_maps():
    """More than the weights four times over, and with the pixels as long as levels stay."""
    small, large = (VS2M((9, 64, side), 2, generator(), SMALL) for side in (64, 128))
    nets = [demand(torch.nn.ModuleList([net])) for net in (small, large)]
    weights = 16 * sum(p.numel() for p in small.parameters())
    assert nets[0].memory > weights
    assert 1.8 < (nets[1].memory - weights) / (nets[0].memory - weights) < 2.1


def test_what_takes_minutes_is_told(caplog):
    nets = torch.nn.ModuleList([VS2M((8, 32, 32), 2, generator())])
    caplog.set_level("INFO", "restore")
    tell("vs2m", nets, 2, 1)
    assert caplog.messages == []
    tell("vs2m", nets, 2, 10**6)
    (line,) = caplog.messages
    assert line.startswith("vs2m: 2 networks, 1000000 steps, about ")
    assert line.endswith(" GB.")


def test_more_components_than_networks_are_told(caplog):
    y = low_rank(1e-4, shape=(40, 32, 32), components=20).float()[None]
    y = (y - y.min()) / (y.max() - y.min())
    operator = operators.denoise(tuple(y.shape[1:]))
    found = FitVS2M(steps=1, map_channels=(2,), hidden=(4,))(y, operator)
    assert found.notes["rank"] == [16]
    # twenty, and the grey that the whole was raised by
    assert any("21 components stand out" in message for message in caplog.messages)
