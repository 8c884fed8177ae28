"""The head of ellipsoids: its tissues have their sizes, whatever the grid."""

import numpy as np
import pytest
import torch

from medical import geometry, phantoms
from medical.phantoms import HEAD, LESION, Ellipsoid

SIZE = (60, 60, 48)


def grid(shape, spacing):
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -affine.diagonal()[:3] * (np.array(shape) - 1) / 2
    return affine


@pytest.mark.parametrize("tissue", [HEAD[0], HEAD[8], HEAD[14], LESION])
@pytest.mark.parametrize("spacing", [(4, 4, 5), (2, 3, 2.5)])
def test_an_ellipsoid_has_its_volume_and_place(tissue, spacing):
    shape = tuple(int(np.ceil(phantoms.FIELD / s)) for s in spacing)
    affine = grid(shape, spacing)
    values = phantoms.render([(tissue, 1.0)], affine, shape)
    # points h apart that lie in a smooth convex body of half axes r: right to (h / r)^1.5
    fine = max(s / np.clip(np.ceil(s), 2, 4) for s in spacing) / min(tissue.half)
    exact = 4 / 3 * np.pi * np.prod(tissue.half)
    assert values.sum() * np.prod(spacing) == pytest.approx(exact, rel=fine**1.5)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1).reshape(-1, 3)
    middle = np.average(geometry.place(affine, index), axis=0, weights=values.ravel())
    np.testing.assert_allclose(middle, tissue.centre, atol=fine**1.5 * max(tissue.half))


def test_a_turned_ellipsoid_points_where_it_should():
    turned = Ellipsoid(1, 1, (40, 5, 5), (0, 0, 0), 30)
    values = phantoms.render([(turned, 1.0)], grid((60, 60, 3), (2, 2, 2)), (60, 60, 3))
    x, y = (np.argwhere(values[:, :, 1] > 0.5) - 29.5).T
    # the long axis of the points
    angle = np.degrees(0.5 * np.arctan2(2 * (x * y).mean(), (x**2 - y**2).mean()))
    assert angle == pytest.approx(30, abs=2)


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_tissues_have_their_numbers_at_their_centres(modality):
    head = phantoms.head(SIZE, modality=modality)
    assert (head.modality, head.orientation) == (modality, "RAS")
    assert head.units == {"CT": "HU", "MR": "a.u."}[modality]
    to_index = np.linalg.inv(head.affine)
    for tissue in (HEAD[8], HEAD[11], HEAD[16], LESION):
        i, j, k = np.round(geometry.place(to_index, tissue.centre)).astype(int)
        value = tissue.ct if modality == "CT" else tissue.mr
        assert head.data[0, i, j, k].item() == pytest.approx(value, abs=1e-3)


def test_the_left_and_right_ventricle_are_mirrored_but_the_lesion_is_on_the_right():
    plain = phantoms.head(SIZE, lesion=False)
    torch.testing.assert_close(plain.data, plain.data.flip(1), atol=0.01, rtol=0)
    difference = phantoms.head(SIZE).data - plain.data
    i = torch.nonzero(difference[0].abs() > 1)[:, 0]
    assert len(i) > 10
    assert (i > SIZE[0] / 2).all()  # x grows to the right


def test_edges_are_mixtures_and_sizes_agree():
    coarse, fine = phantoms.head((30, 30, 24)), phantoms.head(SIZE)
    halved = torch.nn.functional.avg_pool3d(fine.data[None], 2)[0]
    # 64 samples of a voxel against 512 leave 2.7 HU; blending tissue by tissue instead, as if the
    # edges that cross a voxel knew nothing of each other, leaves 9.8
    assert (coarse.data - halved).abs().mean() < 4
    known = torch.tensor(sorted({-1000.0, LESION.ct, *(t.ct for t in HEAD)}))
    distance = (coarse.data[..., None] - known).abs().amin(-1)
    assert 0.05 < (distance > 1).float().mean() < 0.5


def test_the_spacing_may_be_given():
    head = phantoms.head((8, 9, 10), spacing=(1, 2, 3))
    np.testing.assert_array_equal(head.spacing, (1, 2, 3))
    np.testing.assert_allclose(geometry.place(head.affine, (3.5, 4, 4.5)), 0, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {"shape": (8, 8)},
        {"shape": (8, 8, 0)},
        {"spacing": (1, 1)},
        {"spacing": (1, 1, -1)},
        {"modality": "US"},
    ],
)
def test_impossible_heads_are_refused(options):
    with pytest.raises(ValueError, match="expected"):
        phantoms.head(**options)
