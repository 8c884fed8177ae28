"""Masks band by band, masks of one's own, and the stripes of a push-broom sensor."""

import pytest
import torch

import operators

F64 = torch.float64


def test_bandwise_draws_other_places_for_every_band():
    physics = operators.mask((5, 20, 20), keep=0.3, bandwise=True)
    seen = physics.mask[0]
    assert float(seen.sum()) == round(0.3 * 2000)
    assert all(not torch.equal(seen[0], band) for band in seen[1:])
    together = operators.mask((5, 20, 20), keep=0.3).mask[0]
    assert all(torch.equal(together[0], band) for band in together)


def test_own_pixels_and_volumes():
    plane = torch.tensor([[1, 0], [0, 1]])
    x = torch.rand(1, 3, 2, 2)
    assert torch.equal(operators.mask((3, 2, 2), pixels=plane).A(x), x * plane)
    volume = operators.mask((2, 3, 4, 5), keep=0.5)
    assert float(volume.mask[0, 0].sum()) == 30
    x = torch.rand(2, 2, 3, 4, 5)
    torch.testing.assert_close(volume.A_dagger(volume.A(x)), volume.A(x))


@pytest.mark.parametrize("direction", ["vertical", "horizontal"])
def test_stripes(direction):
    physics = operators.stripes((6, 30, 40), dead=0.1, strength=0.2, direction=direction)
    gains = physics.mask[0]
    axis = 1 if direction == "vertical" else 2
    assert torch.equal(gains, gains.select(axis, 0).unsqueeze(axis).expand_as(gains))
    lines = gains.select(axis, 0)
    length = 40 if direction == "vertical" else 30
    assert ((lines == 0).sum(1) == round(0.1 * length)).all()
    assert not torch.equal(lines[0], lines[1])
    alive = lines[lines > 0]
    assert float(alive.min()) >= 0.1
    assert abs(float(alive.mean()) - 1) < 4 * 0.2 / len(alive) ** 0.5
    assert abs(float(alive.std()) - 0.2) < 4 * 0.2 / (2 * len(alive)) ** 0.5
    x = torch.rand(1, 6, 30, 40)
    back = physics.A_dagger(physics.A(x))
    torch.testing.assert_close(back, x * (gains > 0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: operators.mask((1, 4, 4), pixels=torch.full((4, 4), 0.5)), "only 0 and 1"),
        (lambda: operators.mask((1, 4, 4), pixels=torch.ones(3, 3)), "the mask has shape"),
        (lambda: operators.mask((1, 4, 4), box=(2, 2), bandwise=True), "box is given"),
        (lambda: operators.mask((1, 4, 4), pixels=torch.ones(4, 4), keep=0.5), "keep and pixels"),
        (lambda: operators.mask((1, 2, 4, 4), lines=1), "expected"),
        (lambda: operators.stripes((1, 4, 4), dead=1.0), "all 4 lines"),
        (lambda: operators.stripes((1, 4, 4), strength=-1), "strength is -1"),
        (lambda: operators.stripes((1, 4, 4), direction="up"), "direction 'up'"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()
