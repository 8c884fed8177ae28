"""Volumes to MONAI and TorchIO and back: nothing is turned or rounded."""

import numpy as np
import pytest
import torch

from medical import Volume, nifti
from medical.interop import from_monai, from_torchio, to_monai, to_torchio


def volume():
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0] * [0.7, 1 / 3, 5]
    affine[:3, 3] = (-100.1, 20.2, 1e-9)
    data = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    return Volume(data=data, affine=affine, units="HU", modality="CT")


@pytest.mark.parametrize(("there", "back"), [(to_monai, from_monai), (to_torchio, from_torchio)])
def test_there_and_back_is_exact(there, back):
    before = volume()
    after = back(there(before))
    assert type(after.data) is torch.Tensor
    assert torch.equal(after.data, before.data)
    np.testing.assert_array_equal(after.affine, before.affine)
    assert (after.units, after.modality) == ("HU", "CT")
    assert (back(there(before), units="1").units, back(there(before)).grid) == ("1", (3, 4, 5))


def test_a_file_read_by_all_three_is_the_same_volume(tmp_path):
    import torchio
    from monai.transforms.io.array import LoadImage

    ours = volume().derive(volume().data[:1])
    nifti.write(ours, tmp_path / "a.nii")
    ours = nifti.read(tmp_path / "a.nii")
    load = LoadImage(ensure_channel_first=True, image_only=True)
    for theirs in (
        from_monai(load(tmp_path / "a.nii")),
        from_torchio(torchio.ScalarImage(tmp_path / "a.nii")),
    ):
        assert torch.equal(theirs.data, ours.data)
        np.testing.assert_allclose(theirs.affine, ours.affine, atol=1e-4)


def test_monai_tensors_in_lps_are_flipped():
    from monai.data.meta_tensor import MetaTensor

    tensor = MetaTensor(torch.ones(1, 2, 3, 4), affine=torch.eye(4), meta={"space": "LPS"})
    assert from_monai(tensor).orientation == "LPS"
    tensor.meta["space"] = "screen"
    with pytest.raises(ValueError, match="space"):
        from_monai(tensor)


def test_batches_are_refused():
    from monai.data.meta_tensor import MetaTensor

    with pytest.raises(ValueError, match="batch"):
        from_monai(MetaTensor(torch.ones(1, 1, 2, 3, 4)))
