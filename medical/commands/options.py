"""Options about scans that commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer

Scan = Annotated[
    Path, typer.Argument(metavar="IN", help="DICOM folder, DICOMDIR or file; NIfTI; NRRD.")
]
Series = Annotated[
    str | None, typer.Option(metavar="N", help="Of several: number or alias, see `restore scans`.")
]
Frame = Annotated[int | None, typer.Option(metavar="N", help="Of a 4-D NIfTI file, from 0.")]
Modality = Annotated[
    str | None, typer.Option(help="CT (in HU), MR, ...: what a NIfTI or NRRD file does not tell.")
]
Units = Annotated[str | None, typer.Option(help="Of a NIfTI or NRRD file's numbers: HU, SUV, ...")]
OnGap = Annotated[
    str | None, typer.Option(help="Missing or uneven DICOM slices: error, resample or nan-fill.")
]
OnTilt = Annotated[str | None, typer.Option(help="Tilted DICOM slices: error or resample.")]
Orientation = Annotated[
    str | None, typer.Option(help="Of a NIfTI file whose header is in doubt: sform, qform, guess.")
]
Deidentify = Annotated[
    bool, typer.Option("--deidentify", help="Take the patient out of the DICOM header.")
]
PhiChecked = Annotated[
    bool,
    typer.Option("--phi-checked", help="Somebody looked: no name or face can be seen in pixels."),
]


def reading(
    *,
    series: str | None,
    frame: int | None,
    modality: str | None,
    units: str | None,
    on_gap: str | None,
    on_tilt: str | None,
    orientation: str | None,
) -> dict[str, Any]:
    """What was said about reading, as options of `medical.read`.

    Raises:
        ValueError: an unknown word.
    """
    words = (
        ("on-gap", on_gap, ("error", "resample", "nan-fill")),
        ("on-tilt", on_tilt, ("error", "resample")),
        ("orientation", orientation, ("auto", "sform", "qform", "guess")),
    )
    for name, value, known in words:
        if value is not None and value not in known:
            raise ValueError(f"--{name} is '{value}', expected {', '.join(known)}.")
    given = {
        "series": int(series)
        if series is not None and series.isdigit() and len(series) < 8
        else series,
        "frame": frame,
        "modality": modality,
        "units": units,
        "on_gap": on_gap,
        "on_tilt": on_tilt,
        "orientation": orientation,
    }
    return {name: value for name, value in given.items() if value is not None}
