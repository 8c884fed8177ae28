"""Standard deviations as DICOM Parametric Maps: every float32, with unit and meaning."""

import numpy as np
import pydicom
import pytest
import scans
import torch

from medical import Refusal, Volume, geometry
from medical.dicom import read, read_parametric_map, write_parametric_map


def spread(scan, units=None):
    noise = torch.randn(scan.data.shape, generator=torch.Generator().manual_seed(0))
    return scan.derive(noise.abs() * 1e-3, units=units)


@pytest.mark.parametrize("kind", ["single", "multi-frame", "turned"])
def test_round_trip(tmp_path, kind):
    affine = scans.affine_of(turn=scans.rotation(30))
    if kind == "multi-frame":
        scans.enhanced_ct(tmp_path / "scan.dcm", affine=affine)
        scan = read(tmp_path / "scan.dcm")
    else:
        scans.ct_series(tmp_path / "scan", affine=affine)
        scan = read(tmp_path / "scan").reoriented("PSR" if kind == "turned" else "RAS")
    std = spread(scan)
    file = write_parametric_map(std, tmp_path / "std.dcm", source=scan)
    back = read_parametric_map(file, like=scan)
    assert torch.equal(back.data, std.data)
    assert back.units == "HU"
    assert np.abs(back.affine - scan.affine).max() == 0


def test_unit_and_quantity_are_coded(tmp_path):
    scans.pet_series(tmp_path / "scan")
    scan = read(tmp_path / "scan", suv=True)
    file = write_parametric_map(spread(scan), tmp_path / "std.dcm")
    header = pydicom.dcmread(file)
    shared = header.SharedFunctionalGroupsSequence[0]
    mapping = shared.RealWorldValueMappingSequence[0]
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "{SUVbw}g/ml"
    quantity = mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0]
    assert (quantity.CodeValue, quantity.CodingSchemeDesignator) == ("386136009", "SCT")
    assert header.ContentDescription.startswith("Research use, not for diagnosis")
    assert header.StudyInstanceUID == scans.uid(1)
    referred = {
        item.ReferencedSOPInstanceUID
        for series in header.ReferencedSeriesSequence
        for item in series.ReferencedInstanceSequence
    }
    assert referred == {h.SOPInstanceUID for h in scan.source.headers}
    assert read_parametric_map(file).units == "SUV"


def test_highdicom_puts_it_at_the_same_place(tmp_path):
    import highdicom

    scans.ct_series(tmp_path / "scan", affine=scans.affine_of(turn=scans.rotation(30)))
    scan = read(tmp_path / "scan")
    std = spread(scan)
    file = write_parametric_map(std, tmp_path / "std.dcm")
    volume = highdicom.imread(file).get_volume()
    if volume.affine[2, 0] < 0:
        volume = volume.flip_spatial(0)
    lps = geometry.LPS_TO_RAS @ scan.affine
    assert np.abs(volume.affine[:, [2, 1, 0, 3]] - lps).max() < 1e-4
    assert (volume.array.transpose(2, 1, 0) == std.data[0].numpy()).all()


def test_a_finer_grid_than_the_files(tmp_path):
    scans.ct_series(tmp_path / "scan")
    scan = read(tmp_path / "scan")
    fine = Volume(
        data=torch.rand(1, 8, 7, 12, generator=torch.Generator().manual_seed(0)),
        affine=geometry.refined(scan.affine, 2, 2),
        source=scan.source,
    )
    file = write_parametric_map(fine, tmp_path / "std.dcm")
    back = read_parametric_map(file, like=fine)
    assert torch.equal(back.data, fine.data)
    with pytest.raises(Refusal, match="E_GRID_MISMATCH"):
        read_parametric_map(file, like=scan)
    with pytest.raises(Refusal, match="E_GRID_MISMATCH"):
        write_parametric_map(fine, tmp_path / "other.dcm", source=scan)


def test_refusals_leave_nothing(tmp_path):
    volume = Volume(data=torch.ones(1, 3, 3, 3), affine=np.eye(4))
    with pytest.raises(Refusal, match="E_NO_SOURCE"):
        write_parametric_map(volume, tmp_path / "std.dcm")
    with pytest.raises(ValueError, match="'mood' has no code"):
        write_parametric_map(volume, tmp_path / "std.dcm", quantity="mood")
    assert not list(tmp_path.iterdir())
    (scan, *_) = scans.ct_series(tmp_path / "scan")
    with pytest.raises(Refusal, match="E_UNSUPPORTED_SOP"):
        read_parametric_map(scan)
