"""What a volume keeps together, and refuses to hold."""

import dataclasses

import numpy as np
import pytest
import torch

from medical import Refusal, Volume, geometry
from medical.refusal import alias


def volume(**changes):
    data = torch.arange(24, dtype=torch.float32).reshape(1, 2, 3, 4)
    return Volume(**{"data": data, "affine": np.diag([1.0, 2, 3, 1])} | changes)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"data": torch.zeros(2, 3, 4)}, r"\(C, I, J, K\)"),
        ({"data": torch.zeros(1, 2, 3, 4, dtype=torch.float64)}, "float32"),
        ({"data": torch.zeros(1, 2, 0, 4)}, "shape"),
        ({"data": torch.full((2, 2, 3, 4), torch.inf)}, "24 values"),
        ({"affine": np.zeros((4, 4))}, "affine"),
        ({"valid": torch.ones(2, 3, dtype=torch.bool)}, "valid"),
        ({"valid": torch.ones(2, 3, 4)}, "valid"),
    ],
)
def test_what_is_no_volume_is_refused(changes, word):
    with pytest.raises(ValueError, match=word):
        volume(**changes)


def test_it_does_not_change():
    matrix = np.eye(4)
    fixed = volume(affine=matrix)
    matrix[0, 3] = 7
    assert fixed.affine[0, 3] == 0
    with pytest.raises(ValueError, match="read-only"):
        fixed.affine[0, 3] = 7
    with pytest.raises(dataclasses.FrozenInstanceError):
        fixed.units = "HU"  # pyright: ignore[reportAttributeAccessIssue]


def test_what_was_measured_turns_with_the_numbers():
    valid = torch.arange(24).reshape(2, 3, 4) % 5 != 0
    turned = volume(valid=valid).reoriented("PSL")
    assert turned.valid is not None
    assert torch.equal(turned.valid, turned.data[0] % 5 != 0)


@pytest.mark.parametrize("plane", geometry.PLANES)
def test_a_stack_is_slices_rows_and_columns(plane):
    stack = volume().stack(plane)
    assert stack.orientation == geometry.PLANES[plane]
    # rows run down the picture, and columns to its right, which is the patient's left or back
    assert stack.orientation[1:] in ("PL", "IL", "IP")
    assert torch.equal(volume().unstack(stack.data, plane).data, volume().data)
    two = volume().unstack(torch.cat([stack.data, -stack.data]), plane)
    assert torch.equal(two.data[1], -volume().data[0])


def test_other_numbers_need_the_same_grid():
    other = volume().derive(torch.zeros(2, 2, 3, 4), units="1")
    assert (other.units, other.grid, volume().units) == ("1", (2, 3, 4), "a.u.")
    with pytest.raises(ValueError, match="grid"):
        volume().derive(torch.zeros(1, 3, 2, 4))


@pytest.mark.parametrize("codes", ["RA", "RLS", "RASS", "ras", "RASx", ""])
def test_no_orientation_is_refused(codes):
    with pytest.raises(ValueError, match="orientation"):
        volume().reoriented(codes)


def test_it_says_what_it_is():
    words = repr(volume(units="HU", modality="CT"))
    assert words == "<Volume CT 2x3x4 of 1 x 2 x 3 mm, RAS, in HU, 1 channel>"


def test_a_refusal_has_a_sentence_and_a_code():
    refusal = Refusal("E_TILT", "found a tilt.")
    assert (str(refusal), refusal.code) == ("found a tilt. [E_TILT]", "E_TILT")
    assert isinstance(refusal, ValueError)
    assert alias("1.2.3") == alias("1.2.3") != alias("1.2.4")
    assert len(alias("1.2.3")) == 8
