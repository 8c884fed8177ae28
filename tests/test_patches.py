"""Training patches: their range, their chance, and what is refused."""

import pytest
import torch

from priors.patches import Patches, _reduce, _sharpness, turn


def scene(height, width, channels=1, seed=0, low=0, high=256):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(low, high, (channels, height, width), generator=generator).to(torch.uint8)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [1, 33, 128])
def test_shape_range_and_dtype(channels, size):
    patches = Patches([scene(128, 300, channels), scene(400, 130, channels)], size=size, batch=6)
    generator = stream()
    for x in (patches(generator), patches(generator), patches.plain(6, generator)):
        assert (tuple(x.shape), x.dtype) == ((6, channels, size, size), torch.float32)
        assert 0 <= float(x.min()) <= float(x.max()) <= 1


def test_the_generator_decides():
    patches = Patches([scene(150, 150), scene(300, 300, seed=1)], size=16)
    first, again, other = patches(stream(1)), patches(stream(1)), patches(stream(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    state = torch.random.get_rng_state()
    patches(stream())
    assert torch.equal(torch.random.get_rng_state(), state)  # the global stream is left alone


@pytest.mark.parametrize(
    ("scenes", "message"),
    [
        ([], "0 scenes"),
        ([scene(200, 127)], r"scene 0 is .*\(1, 200, 127\)"),
        ([scene(128, 128), scene(64, 500)], "scene 1 is"),
        ([scene(128, 128).float()], "float32"),
    ],
)
def test_unfit_scenes_are_refused(scenes, message):
    with pytest.raises(ValueError, match=message):
        Patches(scenes)


@pytest.mark.parametrize("size", [0, 129])
def test_unfit_sizes_are_refused(size):
    with pytest.raises(ValueError, match=f"size {size}"):
        Patches([scene(300, 300)], size=size)


def test_scenes_are_kept_at_the_sizes_that_leave_room():
    for side, count in ((128, 1), (255, 1), (256, 2), (383, 2), (384, 3), (1000, 3)):
        patches = Patches([scene(side, side + 10)])
        assert len(patches.levels) == count
        assert min(min(level.shape[1:]) for level in patches.levels) >= 128
    # whatever the number of sizes, a scene has one weight, that of its area
    patches = Patches([scene(128, 128), scene(512, 512)])
    small, *large = patches.weights.tolist()
    assert sum(large) / small == pytest.approx(16**0.35)


def test_reduction_averages_blocks():
    x = scene(131, 140, channels=3)
    blocks = x[:, :129, :138].reshape(3, 43, 3, 46, 3).double().mean((2, 4))
    assert float((_reduce(x, 3).double() - blocks).abs().max()) <= 0.5 + 1e-4
    assert _reduce(x, 1) is x


def test_eight_turns_are_the_symmetries_of_the_square():
    patch = torch.arange(9.0).reshape(1, 3, 3)
    turns = [turn(patch, i) for i in range(8)]
    assert len({tuple(t.flatten().tolist()) for t in turns}) == 8
    for a in turns:  # a group: a turn of a turn is a turn
        for i in range(8):
            assert any(torch.equal(turn(a, i), t) for t in turns)


def test_all_turns_are_drawn():
    """Of a scene that falls from left to right, a patch shows its turn by its gradient."""
    ramp = torch.arange(128).mul(2)[None, None].expand(1, 128, 128)
    tilted = (0.8 * ramp + 0.2 * ramp.mT).to(torch.uint8)
    x = Patches([tilted], size=32, batch=300)(stream())
    down, right = x.diff(dim=2).mean((1, 2, 3)), x.diff(dim=3).mean((1, 2, 3))
    kinds = torch.stack([down > 0, right > 0, down.abs() > right.abs()]).unique(dim=1)
    assert kinds.shape[1] == 8


def test_crops_reach_every_corner():
    x = scene(130, 129)
    crops = Patches([x], size=128).plain(200, stream())
    for top in range(3):
        for left in range(2):
            wanted = x[:, top : top + 128, left : left + 128].float() / 255
            assert bool((crops == wanted).flatten(1).all(1).any())


def test_sharper_crops_are_preferred():
    """A scene flat on one half: patches show more gradient than plain crops do."""
    half = torch.cat([torch.full((1, 128, 128), 90, dtype=torch.uint8), scene(128, 128)], dim=2)
    patches = Patches([half], size=32, batch=300)
    sharp = torch.tensor([_sharpness(p) for p in patches(stream())])
    plain = torch.tensor([_sharpness(p) for p in patches.plain(300, stream())])
    assert float((sharp > 0).float().mean()) > float((plain > 0).float().mean()) + 0.1


def test_exposure_keeps_black_and_white():
    """Inversion and gamma map {0, 1} to itself, and a grey to greys within [0.7, 1.4] powers."""
    extremes = (scene(128, 128, low=0, high=2).float() * 255).to(torch.uint8)
    assert set(Patches([extremes], size=16, batch=100)(stream()).unique().tolist()) == {0.0, 1.0}
    grey = torch.full((1, 128, 128), 51, dtype=torch.uint8)
    values = Patches([grey], size=8, batch=400)(stream())[:, 0, 0, 0].double()
    powers = values[values < 0.5].log() / torch.tensor(0.2, dtype=torch.float64).log()
    assert 0.7 <= float(powers.min()) < 0.8
    assert 1.3 < float(powers.max()) < 1.4
    assert 0.5 < float((powers - 1).abs().lt(1e-6).double().mean()) < 0.9
