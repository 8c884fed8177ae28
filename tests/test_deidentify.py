"""De-identified headers: nobody in any byte, everything that measures still there."""

from datetime import date
from pathlib import Path

import numpy as np
import pydicom
import pytest
import scans
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset

from medical import Refusal, deidentify
from medical.dicom import read, read_segmentation, write, write_parametric_map, write_segmentation
from medical.profile import Profile, actions

KEY = b"a key for tests"
DATES = ("19530217", "20240305", "20240101", "20231224")
PLANTED = (scans.SECRET, "Planted", "Quibblewick", "Dr Zanzibar", *DATES)


def item(**values):
    made = Dataset()
    for name, value in values.items():
        setattr(made, name, value)
    return made


def plant(image, k):
    """Identifiers in every kind of place that a header has."""
    image.preamble = scans.SECRET.ljust(128, "!").encode()
    image.file_meta.SourceApplicationEntityTitle = scans.SECRET
    image.PatientName = "Quibblewick^Planted"
    image.OtherPatientNames = ["Planted^Q", "Quibblewick"]
    image.PatientComments = image.ImageComments = image.AdditionalPatientHistory = "Quibblewick"
    image.PerformingPhysicianName = image.OperatorsName = "Zanzibar^Dr"
    image.DeviceSerialNumber, image.StationName = scans.SECRET, scans.SECRET
    image.ConvolutionKernel = "quibblewick7-k"  # free text that no rule mentions
    image.ProtocolName = "Chest of Quibblewick"
    image.InstanceCreationDate, image.ContentDate = "20240101", "20240101"
    image.AcquisitionDateTime = "20240305101500.25+0100"
    image.DateOfLastCalibration = "20231224"
    image.StudyDate = "20240305"
    image.RequestAttributesSequence = [
        item(ScheduledProcedureStepID=scans.SECRET, ScheduledProcedureStepDescription="Planted")
    ]
    image.ReferencedImageSequence = [
        item(ReferencedSOPClassUID=scans.CT, ReferencedSOPInstanceUID=scans.uid(1, 1, 1))
    ]
    image.ReferencedStudySequence = [item(ReferencedSOPInstanceUID=scans.uid(1))]
    image.VolumeFrameOfReferenceUID = scans.uid(2)  # not in the table
    image.ContributingEquipmentSequence = [
        item(
            InstitutionName="Hospital Quibblewick",
            ContributionDateTime="20231224",
            Manufacturer="M",
        )
    ]
    image.AcquisitionContextSequence = [
        item(ValueType="PNAME", PersonName="Dr Zanzibar", ConceptNameCodeSequence=[
            item(CodeValue="1", CodingSchemeDesignator="99Q", CodeMeaning="seen by Dr Zanzibar")
        ])
    ]  # fmt: skip
    block = image.private_block(0x0009, "QUIBBLEWICK", create=True)
    block.add_new(1, "LO", "Planted")
    image.add_new(0x60000010, "US", 8)
    image.add_new(0x60000022, "LO", "Quibblewick")
    image.add_new(0x60003000, "OW", b"Quibblewick.")
    image.add_new(0x50000030, "LO", "Quibblewick")


def planted(folder):
    """What of the identifiers occurs in the bytes or the names of files."""
    for file in filter(Path.is_file, folder.rglob("*")):
        text = file.read_bytes().decode("latin-1") + file.name
        yield from (word for word in PLANTED if word.lower() in text.lower())


def clean(folder, out, **options):
    """De-identify whole files."""
    out.mkdir()
    headers = [pydicom.dcmread(file) for file in sorted(folder.iterdir())]
    done = deidentify(headers, **({"key": KEY} | options))
    for number, header in enumerate(done):
        header.save_as(out / f"{number}.dcm", enforce_file_format=True)
    return headers, done


@pytest.mark.parametrize("options", [{}, {"shift_dates": False}, {"characteristics": True}])
def test_no_identifier_in_any_byte_of_files(tmp_path, options):
    scans.ct_series(tmp_path / "a", edit=plant)
    assert {*planted(tmp_path / "a")} == {*PLANTED}  # the test can fail
    clean(tmp_path / "a", tmp_path / "b", **options)
    assert [*planted(tmp_path / "b")] == []
    before, after = read(tmp_path / "a"), read(tmp_path / "b")
    assert torch.equal(before.data, after.data)
    assert np.array_equal(before.affine, after.affine)


def test_no_identifier_in_any_byte_of_what_is_derived(tmp_path):
    scans.ct_series(tmp_path / "a", edit=plant)
    scan = read(tmp_path / "a")
    out = tmp_path / "out"
    out.mkdir()
    write(scan, out / "series", deidentify=True, key=KEY)
    clean_scan = type(scan)(**(vars(scan) | {"source": deidentify(scan.source, key=KEY)}))
    write_segmentation(torch.ones(scan.grid), out / "mask.dcm", source=clean_scan)
    write_parametric_map(clean_scan, out / "map.dcm")
    assert [*planted(out)] == []
    derived = read(out / "series")
    assert torch.equal(derived.data, scan.data)
    assert read_segmentation(out / "mask.dcm", like=derived).data.all()
    headers = derived.source.headers
    assert headers[0].PatientIdentityRemoved == "YES"
    assert headers[0].DerivationDescription.startswith("Research use, not for diagnosis")
    # the same key gives the source the same UIDs, wherever they are referred to
    profile = Profile(key=KEY)
    referred = {h.SourceImageSequence[0].ReferencedSOPInstanceUID for h in headers}
    assert referred == {profile.uid(h.SOPInstanceUID) for h in scan.source.headers}


def test_without_deidentify_the_patient_stays(tmp_path):
    scans.ct_series(tmp_path / "a", edit=plant)
    write(read(tmp_path / "a"), tmp_path / "b")
    assert "Quibblewick" in {*planted(tmp_path / "b")}


def test_uids_change_together(tmp_path):
    scans.ct_series(tmp_path / "a", edit=plant)
    headers, done = clean(tmp_path / "a", tmp_path / "b")
    old = {h.SOPInstanceUID for h in headers}
    new = {h.SOPInstanceUID for h in done}
    assert len(new) == len(old)
    assert not new & old
    assert len({h.SeriesInstanceUID for h in done}) == 1
    for before, after in zip(headers, done, strict=True):
        assert after.file_meta.MediaStorageSOPInstanceUID == after.SOPInstanceUID
        assert after.ReferencedImageSequence[0].ReferencedSOPInstanceUID in new
        assert after.VolumeFrameOfReferenceUID == after.FrameOfReferenceUID
        assert after.SOPClassUID == before.SOPClassUID
        assert after.ReferencedImageSequence[0].ReferencedSOPClassUID == scans.CT
        assert pydicom.uid.UID(after.SOPInstanceUID).is_valid
    again = deidentify(headers, key=KEY)
    assert {h.SOPInstanceUID for h in again} == new
    assert not {h.SOPInstanceUID for h in deidentify(headers)} & new  # a key of its own


def test_the_given_headers_stay_as_they_are(tmp_path):
    scans.ct_series(tmp_path / "a", edit=plant)
    headers = [pydicom.dcmread(file) for file in sorted((tmp_path / "a").iterdir())]
    before = [str(header) for header in headers]
    deidentify(headers, key=KEY)
    assert [str(header) for header in headers] == before


@settings(max_examples=25, deadline=None)
@given(
    key=st.binary(min_size=1),
    days=st.lists(st.dates(date(1990, 1, 1), date(2030, 1, 1)), min_size=2, max_size=4),
)
def test_intervals_survive_shifted_dates(key, days):
    texts = [f"{day:%Y%m%d}" for day in days]
    fields = ("StudyDate", "AcquisitionDate", "SeriesDate", "ContentDate")
    header = item(PatientID="X", **dict(zip(fields, texts, strict=False)))
    header.AcquisitionDateTime = texts[0] + "101500.5"
    (done,) = deidentify([header], key=key)
    moved = [pydicom.valuerep.DA(getattr(done, name)) for name in fields[: len(days)]]
    shifts = {(new - old).days for new, old in zip(moved, days, strict=True)}
    assert len(shifts) == 1
    assert -3650 <= shifts.pop() <= -365
    assert done.AcquisitionDateTime == f"{moved[0]:%Y%m%d}101500.5"
    assert done.LongitudinalTemporalInformationModified == "MODIFIED"


def test_suv_survives(tmp_path):
    def overnight(image, k):  # injected before midnight, scanned after
        image.SeriesTime = image.AcquisitionTime = "003000"
        tracer = image.RadiopharmaceuticalInformationSequence[0]
        tracer.RadiopharmaceuticalStartDateTime = "20240304233000"

    scans.pet_series(tmp_path / "a", edit=overnight)
    clean(tmp_path / "a", tmp_path / "b", characteristics=True)
    before, after = (read(tmp_path / name, suv=True) for name in "ab")
    assert torch.allclose(before.data, after.data, rtol=1e-6)
    # without the weight there is no SUV, and none is invented
    clean(tmp_path / "a", tmp_path / "c")
    with pytest.raises(Refusal, match="E_SUV_WEIGHT"):
        read(tmp_path / "c", suv=True)


def test_the_header_says_by_which_rules(tmp_path):
    header = item(PatientID="X", PatientWeight=70, PatientSex="F", StudyDate="20240305")
    expected = {
        (True, False): ["113100", "113107"],
        (False, False): ["113100"],
        (False, True): ["113100", "113108"],
    }
    for (dates, patient), codes in expected.items():
        (done,) = deidentify([header], shift_dates=dates, characteristics=patient)
        found = [code.CodeValue for code in done.DeidentificationMethodCodeSequence]
        assert found == codes
        assert ("PatientWeight" in done) is patient
        assert bool(done.StudyDate) is dates
        assert len(done.DeidentificationMethod) <= 64


def test_patients_stay_apart_and_together():
    ids = ["one", "two", "one"]
    done = deidentify([item(PatientID=name, PatientName="A^B") for name in ids], key=KEY)
    names = [header.PatientID for header in done]
    assert names[0] == names[2] != names[1]


@pytest.mark.parametrize(
    "values",
    [
        {"Modality": "US"},
        {"Modality": "OT"},
        {"Modality": "ES"},
        {"Modality": "XC"},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"},  # secondary capture
        {"BurnedInAnnotation": "YES"},
        {"ImageType": ["DERIVED", "SECONDARY", "AXIAL"]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "SCREEN SAVE"]},
    ],
)
def test_pixels_that_may_show_the_patient_are_refused(values):
    header = item(PatientID=scans.SECRET, **({"Modality": "CT"} | values))
    with pytest.raises(Refusal, match="E_PHI_PIXELS") as refused:
        deidentify([header])
    assert scans.SECRET not in str(refused.value)
    (done,) = deidentify([header], phi_checked=True)
    assert done.PatientID != scans.SECRET


def test_writing_a_suspect_leaves_nothing(tmp_path):
    def burn(image, k):
        image.BurnedInAnnotation = "YES"

    scans.ct_series(tmp_path / "a", edit=burn)
    scan = read(tmp_path / "a")
    with pytest.raises(Refusal, match="E_PHI_PIXELS"):
        write(scan, tmp_path / "b", deidentify=True)
    assert not (tmp_path / "b").exists()
    write(scan, tmp_path / "b", deidentify=True, phi_checked=True)


def test_the_table_is_the_standards():
    """Some of table E.1-1, typed off the standard: the dependency has it right."""
    table = {
        "AccessionNumber": "Z",
        "AcquisitionComments": "X",
        "ContentDate": "Z/D",
        "DerivationDescription": "X",
        "InstitutionName": "X/Z/D",
        "PatientBirthDate": "Z",
        "PatientName": "Z",
        "PatientWeight": "X",
        "ProtocolName": "X/D",
        "SourceImageSequence": "X/Z/U*",
        "StudyID": "Z",
    }
    tags = {name: pydicom.datadict.tag_for_keyword(name) for name in table}
    assert {name: actions()[tags[name]] for name in table} == table
    assert len(actions()) > 500
