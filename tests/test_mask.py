"""Masks, band by band or of one's own, and the stripes of a push-broom sensor."""

import math

import numpy as np
import pytest
import torch

import operators

F64 = torch.float64


@pytest.mark.parametrize("spec", ["keep=0.3,seed=3", "box=5x7+2+3", "lines=4,thickness=2"])
@pytest.mark.parametrize("shape", [(3, 24, 24), (3, 23, 31)])
def test_masks_are_projections_shared_by_the_channels(spec, shape):
    physics = operators.parse(f"mask:{spec}", shape)
    y = physics.A(torch.ones(1, *shape))
    assert torch.equal(physics.A(y), y)
    assert torch.equal(y, y[:, :1].expand_as(y))
    assert 0 < y.mean() < 1


def test_random_mask_keeps_the_fraction_and_follows_its_seed():
    def kept(seed):
        return operators.mask((2, 20, 30), keep=0.25, seed=seed).A(torch.ones(1, 2, 20, 30))

    assert kept(0).sum() == 2 * 150
    assert torch.equal(kept(0), kept(0))
    assert not torch.equal(kept(0), kept(1))


def test_bandwise_draws_other_places_for_every_band():
    seen = operators.mask((5, 20, 20), keep=0.3, bandwise=True).mask[0]
    assert seen.sum((1, 2)).tolist() == [120] * 5
    assert all(not torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])


def test_box_and_lines_are_where_they_should_be():
    box = operators.parse("mask:box=4x6+1+2", (1, 10, 12)).A(torch.ones(1, 1, 10, 12))[0, 0]
    assert box.sum() == 120 - 24
    assert box[1:5, 2:8].sum() == 0
    middle = operators.parse("mask:box=4x6", (1, 10, 12)).A(torch.ones(1, 1, 10, 12))[0, 0]
    assert torch.equal(middle, middle.flip(0, 1))
    lines = operators.parse("mask:lines=3", (1, 9, 5)).A(torch.ones(1, 1, 9, 5))[0, 0]
    assert (lines[:, 0] == 0).nonzero().flatten().tolist() == [1, 4, 7]


def test_mask_file_must_fit_and_be_black_and_white(tmp_path):
    from skimage import io

    plane = np.zeros((6, 8), dtype=np.uint8)
    plane[2:4] = 255
    io.imsave(tmp_path / "m.png", plane, check_contrast=False)
    y = operators.mask((3, 6, 8), file=tmp_path / "m.png").A(torch.ones(1, 3, 6, 8))
    assert torch.equal(y[0, 0], torch.from_numpy(plane / 255).float())
    with pytest.raises(ValueError, match=r"6x8 pixels but the image 8x6"):
        operators.mask((3, 8, 6), file=tmp_path / "m.png")
    plane[0, 0] = 100
    io.imsave(tmp_path / "grey.png", plane, check_contrast=False)
    with pytest.raises(ValueError, match="3 grey values"):
        operators.mask((3, 6, 8), file=tmp_path / "grey.png")


def test_own_masks_and_volumes():
    plane = torch.tensor([[1, 0], [0, 1]])
    x = torch.rand(1, 3, 2, 2)
    assert torch.equal(operators.mask((3, 2, 2), mask=plane).A(x), x * plane)
    assert torch.equal(operators.mask((3, 2, 2), mask=x[0] > 0.5).A(x), x * (x > 0.5))
    volume = operators.mask((2, 3, 4, 5), keep=0.5)
    assert float(volume.mask[0, 0].sum()) == 30
    x = torch.rand(2, 2, 3, 4, 5)
    torch.testing.assert_close(volume.A_dagger(volume.A(x)), volume.A(x))


@pytest.mark.parametrize("direction", ["vertical", "horizontal"])
def test_stripes_are_gains_of_lines(direction):
    physics = operators.stripes((6, 30, 40), dead=0.1, strength=0.2, direction=direction)
    gains = physics.gains[0]
    axis = 1 if direction == "vertical" else 2
    lines = gains.select(axis, 0)
    assert torch.equal(gains, lines.unsqueeze(axis).expand_as(gains))
    assert ((lines == 0).sum(1) == round(0.1 * lines.shape[1])).all()
    assert not torch.equal(lines[0], lines[1])
    alive = lines[lines > 0]
    assert float(alive.min()) >= 0.1
    assert abs(float(alive.mean()) - 1) < 4 * 0.2 / len(alive) ** 0.5
    assert abs(float(alive.std()) - 0.2) < 4 * 0.2 / (2 * len(alive)) ** 0.5
    again = operators.stripes((6, 30, 40), dead=0.1, strength=0.2, direction=direction, seed=1)
    assert not torch.equal(again.gains[0], gains)


def test_stripes_are_their_own_decomposition():
    physics = operators.stripes((3, 7, 9), dead=0.3, strength=0.4)
    x = torch.rand(2, 3, 7, 9)
    form = operators.svd(physics)
    assert torch.equal(form.U(form.s * form.Vt(x)), physics.A(x))
    torch.testing.assert_close(physics.A_dagger(physics.A(x)), x * (physics.gains > 0))


def test_noise_of_stripes_has_one_level_and_stays_off_dead_lines():
    shape = (3, 40, 60)
    physics = operators.stripes(shape, dead=0.25, strength=0.4, noise=0.1)
    x = torch.rand(1, *shape)
    n = operators.measure(physics, x, seed=0) - physics.A(x)
    alive = (physics.gains > 0).expand_as(n)
    assert torch.equal(n[~alive], torch.zeros_like(n[~alive]))
    for part in (physics.gains > 1, (physics.gains < 1) & alive):
        count = int(part.sum())
        assert float(n[part].std()) == pytest.approx(0.1, rel=4 / math.sqrt(2 * count))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: operators.mask((1, 8, 8), keep=0), "keep is 0, expected"),
        (lambda: operators.mask((1, 8, 8), keep=1.5), "keep is 1.5, expected"),
        (lambda: operators.mask((1, 8, 8), keep=math.nan), "keep is nan, expected"),
        (lambda: operators.mask((1, 8, 8), keep=0.2, lines=2), "keep and lines, expected one"),
        (lambda: operators.mask((1, 4, 4), mask=torch.full((4, 4), 0.5)), "only 0 and 1"),
        (lambda: operators.mask((1, 4, 4), mask=torch.full((4, 4), math.nan)), "only 0 and 1"),
        (lambda: operators.mask((1, 4, 4), mask=torch.zeros(4, 4)), "keeps no pixel"),
        (lambda: operators.mask((1, 4, 4), mask=torch.ones(3, 3)), r"\(3, 3\) but the image"),
        (lambda: operators.mask((1, 4, 4), box=(2, 2), bandwise=True), "box is given"),
        (lambda: operators.mask((1, 4, 4), mask=torch.ones(4, 4), keep=0.5), "keep and mask"),
        (lambda: operators.mask((1, 2, 4, 4), lines=1), r"expected \(C, H, W\)"),
        (lambda: operators.stripes((1, 4, 4), dead=1.0), "all 4 lines"),
        (lambda: operators.stripes((1, 4, 4), strength=-1), "strength is -1"),
        (lambda: operators.stripes((1, 4, 4), direction="up"), "direction 'up'"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()
