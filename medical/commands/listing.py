"""`restore scans`: what is at a path, and what is wrong with it."""

from pathlib import Path
from typing import Any

from medical.commands.options import Scan
from restore.commands.options import AsJson
from restore.console import show_rows


def scans(source: Scan, as_json: AsJson = False) -> None:
    """List the scans at a path.

    One line a series of DICOM, with the number or alias by which --series chooses it and the code
    of what is wrong with it, or the facts of a NIfTI or NRRD file. Nothing that tells who the
    patient is.
    """
    show_rows(rows(source), as_json)


def rows(source: Path) -> list[dict[str, Any]]:
    """One row a scan."""
    from medical.dicom import list_series
    from medical.dicom.file import is_dicom
    from medical.files import read

    if source.is_dir() or (source.is_file() and is_dicom(source)):
        return [
            {
                "series": found.number,
                "alias": found.alias,
                "modality": found.modality,
                "voxels": "x".join(map(str, found.size)),
                "mm": "" if found.spacing is None else _sides(found.spacing),
                "axes": found.orientation,
                "images": found.count,
                "problem": found.problem,
            }
            for found in list_series(source)
        ]
    scan = read(source)
    low, high = (float(x) for x in scan.data.aminmax())
    return [
        {
            "modality": scan.modality,
            "voxels": "x".join(map(str, scan.grid)),
            "channels": len(scan.data),
            "mm": _sides(tuple(scan.spacing)),
            "axes": scan.orientation,
            "values": f"{low:.4g} to {high:.4g} {scan.units}",
            "notes": " ".join(scan.notes),
        }
    ]


def _sides(spacing: tuple[float, ...]) -> str:
    return " x ".join(f"{s:.3g}" for s in spacing)
