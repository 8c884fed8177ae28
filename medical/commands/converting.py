"""`restore convert`: from one format to another, nothing restored, nothing resampled."""

from pathlib import Path
from typing import Annotated

import typer

from medical.commands.options import (
    Deidentify,
    Frame,
    Modality,
    OnGap,
    OnTilt,
    Orientation,
    PhiChecked,
    Scan,
    Series,
    Units,
    reading,
)
from restore.commands.options import Overwrite, Quiet
from restore.console import say


def convert(
    source: Scan,
    out: Annotated[
        Path, typer.Option("-o", "--out", help=".nii, .nii.gz, or a folder for a DICOM series.")
    ],
    series: Series = None,
    frame: Frame = None,
    modality: Modality = None,
    units: Units = None,
    on_gap: OnGap = None,
    on_tilt: OnTilt = None,
    orientation: Orientation = None,
    deidentify: Deidentify = False,
    phi_checked: PhiChecked = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Convert a scan between DICOM and NIfTI.

    Numbers keep their units and voxels their places. A NIfTI file holds nothing of the header; a
    DICOM series made from DICOM keeps patient and study unless --deidentify takes them out.
    """
    from medical.files import read, write
    from medical.reconstruct.filework import NIFTI, anonymous, refuse_taken
    from medical.refusal import Refusal

    is_nifti = str(out).endswith(NIFTI)
    if not is_nifti and out.suffix != "":
        raise Refusal(
            "E_FORMAT", f"'{out}' ends in '{out.suffix}', expected .nii, .nii.gz or a folder."
        )
    refuse_taken(out, source, overwrite=overwrite)
    how = reading(
        series=series,
        frame=frame,
        modality=modality,
        units=units,
        on_gap=on_gap,
        on_tilt=on_tilt,
        orientation=orientation,
    )
    scan = read(source, **how)
    scan = anonymous(scan, phi_checked) if deidentify else scan
    if is_nifti:
        write(scan, out, overwrite=overwrite)
    else:
        write(scan, out, description="converted", algorithm="Converted", overwrite=overwrite)
    if not quiet:
        notes = "".join(f"\n  note: {note}" for note in scan.notes)
        say(f"{scan!r}{notes}\nWrote {out}.", to_stderr=True)
