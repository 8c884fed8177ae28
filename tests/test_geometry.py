"""Where voxels are: against SimpleITK, nibabel and arithmetic."""

from itertools import permutations, product

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from medical import Volume, geometry

ORIENTATIONS = [
    "".join(letters) for axes in permutations(("RL", "AP", "SI")) for letters in product(*axes)
]
OBLIQUE = np.array(
    [[1.5, 0.4, -0.3, -7.0], [-0.5, 1.9, 0.2, 31.25], [0.6, -0.3, 2.8, 12.5], [0, 0, 0, 1]]
)


def numbered(affine, grid=(3, 4, 5)):
    """A volume whose voxels all differ."""
    count = int(np.prod(grid))
    return Volume(data=torch.arange(count, dtype=torch.float32).reshape(1, *grid), affine=affine)


def worlds(volume):
    """Where each number is, `(N, 3)` in the order of the numbers."""
    index = np.stack(np.meshgrid(*map(np.arange, volume.grid), indexing="ij"), -1).reshape(-1, 3)
    order = np.argsort(volume.data.numpy().ravel())
    return geometry.place(volume.affine, index[order])


def test_there_are_48_orientations():
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_numbers_stay_where_they_are_in_all_orientations(codes):
    volume = numbered(OBLIQUE)
    turned = volume.reoriented(codes)
    assert turned.orientation == codes
    # a few roundings of numbers up to 40 mm, each of 4e-15
    np.testing.assert_allclose(worlds(turned), worlds(volume), rtol=0, atol=1e-13)
    back = turned.reoriented(volume.orientation)
    assert torch.equal(back.data, volume.data)
    np.testing.assert_allclose(back.affine, OBLIQUE, rtol=0, atol=1e-13)


def affines():
    """Rotations of any kind with spacings of 0.1 to 10 mm, sheared a little."""
    entries = st.floats(-1, 1)
    return st.tuples(
        arrays(float, (3, 3), elements=entries),
        arrays(float, 3, elements=st.floats(0.1, 10)),
        arrays(float, 3, elements=st.floats(-500, 500)),
        st.floats(0, 0.3),
    ).map(_affine)


def _affine(parts):
    matrix, spacing, origin, shear = parts
    rotation = np.linalg.qr(matrix + 1e-3 * np.eye(3))[0]
    affine = np.eye(4)
    affine[:3, :3] = (rotation + shear * np.eye(3)[::-1]) * spacing
    affine[:3, 3] = origin
    return affine


@settings(max_examples=40, deadline=None)
@given(
    affine=affines(), codes=st.sampled_from(ORIENTATIONS), grid=st.tuples(*[st.integers(1, 4)] * 3)
)
def test_numbers_stay_where_they_are_for_any_affine(affine, codes, grid):
    try:
        volume = numbered(affine, grid)
    except ValueError:  # a shear that flattens the volume
        assert geometry.flat(affine)
        return
    turned = volume.reoriented(codes)
    np.testing.assert_allclose(worlds(turned), worlds(volume), rtol=0, atol=1e-10)
    for plane in geometry.PLANES:
        stack = volume.stack(plane)
        assert torch.equal(volume.unstack(stack.data, plane).data, volume.data)


def test_stacks_come_back_where_orientations_are_ambiguous():
    # at 45 degrees two answers are right, and a reader of the answer may take the other one
    half = np.sqrt(0.5)
    turn = np.array([[half, -half, 0], [half, half, 0], [0, 0, 1]])
    for columns, spacing in product(permutations(range(3)), ([1, 1, 1], [0.7, 1.3, 3])):
        affine = np.eye(4)
        affine[:3, :3] = turn[:, columns] * spacing
        volume = numbered(affine, (3, 3, 3))
        for plane in geometry.PLANES:
            assert torch.equal(volume.unstack(volume.stack(plane).data, plane).data, volume.data)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("factor", [2, 3, 5])
def test_a_refined_grid_has_the_same_extent(axis, factor):
    fine = geometry.refined(OBLIQUE, axis, factor)
    size = np.array([3, 4, 5])
    finer = np.where(np.arange(3) == axis, factor, 1) * size
    for corner in product((0, 1), repeat=3):
        a = geometry.place(OBLIQUE, corner * size - 0.5)
        np.testing.assert_allclose(geometry.place(fine, corner * finer - 0.5), a, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_dicom_attributes_lead_where_simpleitk_leads(seed):
    rng = np.random.default_rng(seed)
    direction = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    direction[:, 2] = np.cross(direction[:, 0], direction[:, 1])
    origin, (columns, rows, slices) = rng.uniform(-300, 300, 3), rng.uniform(0.3, 5, 3)
    affine = geometry.from_dicom(
        np.concatenate([direction[:, 0], direction[:, 1]]),
        (rows, columns),
        origin,
        direction[:, 2] * slices,
    )
    image = SimpleITK.Image(7, 8, 9, SimpleITK.sitkUInt8)
    image.SetDirection(direction.ravel())
    image.SetOrigin(origin)
    image.SetSpacing((columns, rows, slices))
    for index in ((0, 0, 0), (6, 0, 0), (0, 7, 0), (0, 0, 8), (3, 5, 2)):
        x, y, z = image.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(geometry.place(affine, index), (-x, -y, z), atol=1e-9)


def test_a_real_slice_is_where_simpleitk_has_it():
    from pydicom import dcmread
    from pydicom.data import get_testdata_file

    path = str(get_testdata_file("J2K_pixelrep_mismatch.dcm"))  # tilted by 22 degrees
    header, image = dcmread(path, stop_before_pixels=True), SimpleITK.ReadImage(path)
    normal = np.array(image.GetDirection()).reshape(3, 3)[:, 2]
    affine = geometry.from_dicom(
        header.ImageOrientationPatient, header.PixelSpacing, header.ImagePositionPatient, normal
    )
    for index in ((0, 0), (511, 0), (0, 511), (100, 200)):
        x, y, z = image.TransformIndexToPhysicalPoint((*index, 0))
        # its cosines have four digits and a length of 1 + 1.25e-5; ITK divides by it: 220 mm of it
        np.testing.assert_allclose(geometry.place(affine, (*index, 0)), (-x, -y, z), atol=0.003)


def test_shear_spacing_and_codes():
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    affine[0, 1] = 2 * np.tan(np.radians(10))  # the second axis leans by 10 degrees
    np.testing.assert_allclose(geometry.shear(affine), 10)
    np.testing.assert_allclose(geometry.spacing(affine), [1, 2 / np.cos(np.radians(10)), 3])
    assert geometry.codes(affine) == "RAS"
    assert geometry.codes(geometry.LPS_TO_RAS) == "LPS"
    assert geometry.shear(OBLIQUE[:, [1, 0, 2, 3]]) == geometry.shear(OBLIQUE)


def test_codes_are_those_of_nibabel():
    for codes in ORIENTATIONS:
        turned = numbered(OBLIQUE).reoriented(codes)
        assert "".join(nibabel.aff2axcodes(turned.affine)) == codes


def test_grids_are_the_same_as_far_as_their_farthest_voxel():
    turned = OBLIQUE.copy()
    turned[0, 0] += 1e-6  # over 100 voxels, 1e-4 mm
    assert geometry.same_grid(OBLIQUE, turned, (90, 1, 1))
    assert not geometry.same_grid(OBLIQUE, turned, (120, 1, 1))


@pytest.mark.parametrize(
    ("matrix", "word"),
    [
        (np.eye(3), "4 x 4"),
        (np.full((4, 4), np.nan), "finite"),
        (np.diag([1.0, 0, 1, 1]), "dependent"),
        (np.diag([1.0, 1, 1, 2]), "last"),
        ([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], "dependent"),
    ],
)
def test_matrices_that_are_no_affines_are_refused(matrix, word):
    with pytest.raises(ValueError, match=word):
        geometry.as_affine(matrix)
