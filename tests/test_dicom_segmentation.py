"""Masks as DICOM Segmentations: voxel by voxel, wherever frames are, or refused."""

import numpy as np
import pydicom
import pytest
import scans
import torch

from medical import Refusal, Volume, geometry
from medical.dicom import read, read_segmentation, write, write_segmentation


def drawn(grid, segments=1, seed=0):
    """Random masks with an empty slice along every axis."""
    mask = torch.rand((segments, *grid), generator=torch.Generator().manual_seed(seed)) > 0.7
    mask[:, 1] = mask[:, :, 1] = mask[:, :, :, 1] = False
    return mask.float()


@pytest.fixture(params=["single", "multi-frame", "turned"])
def scan(request, tmp_path):
    affine = scans.affine_of(turn=scans.rotation(30))
    if request.param == "multi-frame":
        scans.enhanced_ct(tmp_path / "scan.dcm", affine=affine)
        return read(tmp_path / "scan.dcm")
    scans.ct_series(tmp_path / "scan", affine=affine)
    volume = read(tmp_path / "scan")
    return volume.reoriented("SPL") if request.param == "turned" else volume


def test_binary_masks_round_trip(scan, tmp_path):
    masks = drawn(scan.grid, 2)
    file = write_segmentation(
        scan.derive(masks), tmp_path / "m.dcm", source=scan, label=["tumour", "elsewhere"]
    )
    back = read_segmentation(file, like=scan)
    assert torch.equal(back.data, masks)
    header = pydicom.dcmread(file)
    assert header.SegmentationType == "BINARY"
    codes = [s.SegmentedPropertyTypeCodeSequence[0].CodeMeaning for s in header.SegmentSequence]
    assert codes == ["Neoplasm", "Tissue"]
    assert header.SegmentSequence[0].SegmentAlgorithmType == "AUTOMATIC"


def test_the_order_of_source_files_and_frames_does_not_matter(tmp_path):
    scans.ct_series(tmp_path / "a", shuffle=3)
    scan = read(tmp_path / "a")
    mask = drawn(scan.grid)
    file = write_segmentation(mask, tmp_path / "m.dcm", source=scan)
    # shuffle the frames of the file, and read it on another reading of the scan
    segmentation = pydicom.dcmread(file)
    frames = segmentation.pixel_array
    order = np.random.default_rng(0).permutation(len(frames))
    groups = segmentation.PerFrameFunctionalGroupsSequence
    segmentation.PerFrameFunctionalGroupsSequence = [groups[n] for n in order]
    packed = pydicom.pixels.pack_bits(frames[order].ravel())
    segmentation.PixelData = packed + b"\0" * (len(packed) % 2)
    segmentation.save_as(tmp_path / "n.dcm")
    scans.ct_series(tmp_path / "b", shuffle=4)
    again = read_segmentation(tmp_path / "n.dcm", like=read(tmp_path / "b"))
    assert torch.equal(again.data[0], mask[0])


def test_highdicom_agrees_on_place_and_source(tmp_path):
    import highdicom

    scans.ct_series(tmp_path / "a", affine=scans.affine_of(turn=scans.rotation(30)))
    scan = read(tmp_path / "a")
    mask = drawn(scan.grid)
    file = write_segmentation(mask, tmp_path / "m.dcm", source=scan)
    seg = highdicom.seg.segread(file)
    for k, header in enumerate(scan.source.headers):
        uids = [header.SOPInstanceUID]
        if not mask[0, :, :, k].any():  # no frame for an empty one
            continue
        frame = seg.get_pixels_by_source_instance(uids)[0, :, :, 0]
        assert (frame == mask[0, :, :, k].numpy().T).all()
    assert seg.FrameOfReferenceUID == scans.uid(2)


def test_probabilities(scan, tmp_path):
    share = torch.rand(scan.grid, generator=torch.Generator().manual_seed(1))
    file = write_segmentation(share, tmp_path / "m.dcm", source=scan, kind="fractional")
    back = read_segmentation(file, like=scan)
    assert (back.data[0] - share).abs().max() <= 0.5001 / 255  # half of 255 steps
    assert pydicom.dcmread(file).SegmentationFractionalType == "PROBABILITY"


def test_an_empty_mask(scan, tmp_path):
    file = write_segmentation(torch.zeros(scan.grid), tmp_path / "m.dcm", source=scan)
    assert not read_segmentation(file, like=scan).data.any()


def test_a_mask_on_a_finer_grid_than_the_files(tmp_path):
    scans.ct_series(tmp_path / "a")
    scan = read(tmp_path / "a")
    fine = Volume(
        data=scan.data.repeat_interleave(2, dim=3),
        affine=geometry.refined(scan.affine, 2, 2),
        source=scan.source,
    )
    mask = drawn(fine.grid)
    file = write_segmentation(mask, tmp_path / "m.dcm", source=fine)
    assert torch.equal(read_segmentation(file, like=fine).data, mask)
    with pytest.raises(Refusal, match="E_GRID_MISMATCH"):
        read_segmentation(file, like=scan)


def test_a_mask_fits_the_derived_series_too(tmp_path):
    scans.ct_series(tmp_path / "a")
    scan = read(tmp_path / "a")
    mask = drawn(scan.grid)
    file = write_segmentation(mask, tmp_path / "m.dcm", source=scan)
    derived = read(write(scan, tmp_path / "b"))
    assert torch.equal(read_segmentation(file, like=derived).data, mask)


def test_other_grids_are_refused_with_both(scan, tmp_path):
    mask = drawn(scan.grid)
    file = write_segmentation(mask, tmp_path / "m.dcm", source=scan)
    moved = scan.affine.copy()
    moved[:3, 3] += moved[:3, 0] / 4
    other = Volume(data=scan.data, affine=moved, source=scan.source)
    with pytest.raises(Refusal, match=r"E_GRID_MISMATCH") as refused:
        read_segmentation(file, like=other)
    assert refused.value.sentence.count("affine") == 2
    with pytest.raises(Refusal, match="E_GRID_MISMATCH"):
        write_segmentation(other.derive(mask), tmp_path / "n.dcm", source=scan)
    with pytest.raises(Refusal, match="E_GRID_MISMATCH"):
        write_segmentation(mask[:, 1:], tmp_path / "n.dcm", source=scan)
    part = Volume(data=scan.data[:, :, :, :-1], affine=scan.affine)
    full = write_segmentation(torch.ones(scan.grid), tmp_path / "f.dcm", source=scan)
    with pytest.raises(Refusal, match="E_GRID_MISMATCH"):
        read_segmentation(full, like=part)


def test_bad_masks(tmp_path):
    scans.ct_series(tmp_path / "a")
    scan = read(tmp_path / "a")
    file = tmp_path / "m.dcm"
    bad = {
        "binary": torch.full(scan.grid, 0.5),
        "fractional": torch.full(scan.grid, 1.5),
    }
    for kind, mask in bad.items():
        with pytest.raises(Refusal, match="E_MASK_VALUES"):
            write_segmentation(mask, file, source=scan, kind=kind)
    with pytest.raises(Refusal, match="E_MASK_VALUES"):
        write_segmentation(torch.full(scan.grid, torch.nan), file, source=scan, kind="fractional")
    with pytest.raises(ValueError, match="2 labels for 1"):
        write_segmentation(torch.ones(scan.grid), file, source=scan, label=["a", "b"])
    orphan = Volume(data=scan.data, affine=scan.affine)
    with pytest.raises(Refusal, match="E_NO_SOURCE"):
        write_segmentation(torch.ones(scan.grid), file, source=orphan)
    assert not file.exists()
    image = next((tmp_path / "a").iterdir())
    with pytest.raises(Refusal, match="E_UNSUPPORTED_SOP"):
        read_segmentation(image, like=scan)
    write_segmentation(torch.ones(scan.grid), file, source=scan)
    with pytest.raises(FileExistsError):
        write_segmentation(torch.ones(scan.grid), file, source=scan)
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    with pytest.raises(Refusal, match="E_TRUNCATED"):
        read_segmentation(file, like=scan)
