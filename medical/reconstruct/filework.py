"""From a scan's files to restored files: what `restore volume` does, callable from Python.

Everything that can be refused is refused before the first network call; every output appears whole
or not at all; a run that is killed goes on where it was when it is asked for again.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from medical.deidentification import deidentify as deidentified
from medical.dicom import folder as folders
from medical.dicom.source import DicomSource
from medical.files import read, write
from medical.geometry import Plane
from medical.reconstruct import ledger
from medical.reconstruct.measured import read_measurement
from medical.reconstruct.outcome import Restored
from medical.reconstruct.settings import Settings
from medical.reconstruct.work import reconstruct
from medical.refusal import Refusal
from medical.volume import Volume
from restore.files import check_free
from restore.filework import usable_device
from restore.measurements import story_path, write_story

NIFTI = (".nii", ".nii.gz")


def restore_scan(
    source: Path,
    out: Path,
    task: str,
    settings: Settings,
    *,
    std: Path | None = None,
    report: Path | None = None,
    measurements: Path | None = None,
    simulate: bool = False,
    reading: Mapping[str, Any] | None = None,
    prior: str | None = None,
    solver: str | None = None,
    options: Mapping[str, Any] | None = None,
    plane: Plane | None = None,
    samples: int = 4,
    seed: int = 0,
    device: str | None = None,
    deidentify: bool = False,
    phi_checked: bool = False,
    fresh: bool = False,
    overwrite: bool = False,
    progress: bool | None = None,
) -> Restored:
    """Restore a scan; nothing is written when the solver diverged.

    Args:
        source: DICOM folder or file, NIfTI or NRRD file.
        out: `.nii`, `.nii.gz`, or a folder for a derived DICOM series.
        task: a name of `medical.reconstruct.tasks()`.
        settings: how it was measured.
        std: `.nii`, `.nii.gz`, or `.dcm` for a parametric map, for the std of the result.
        report: `.html`.
        measurements: `.npy` or `.safetensors`.
        simulate: measure the scan itself, also where the scan is a measurement.
        reading: options of the reader, see `medical.read`.
        prior: see `reconstruct`.
        solver: see `reconstruct`.
        options: see `reconstruct`.
        plane: see `reconstruct`.
        samples: see `reconstruct`.
        seed: see `reconstruct`.
        device: by default "cuda" where there is one.
        deidentify: take the patient out of the headers.
        phi_checked: somebody has looked at the pixels; see `medical.deidentification`.
        fresh: discard unfinished work on `out`.
        overwrite: replace outputs, though never `source`.
        progress: show a bar; None shows it on a terminal only.

    Raises:
        Refusal, ValueError, OSError: one sentence on what does not fit and what to do.
    """
    outputs = [path for path in (out, std, report) if path is not None]
    ours = ledger.half_written(out)
    refuse_outputs(source, out, std, report, overwrite)
    if std is not None and samples < 2:
        raise Refusal("E_SETTING", "a std needs at least 2 samples, found 1; raise --samples.")
    where = usable_device(device)
    y = None if measurements is None else read_measurement(measurements)
    volume = read_scan(source, task, reading or {})
    if out.suffix == "":
        check_replaceable(out, volume, overwrite=overwrite or out.resolve() in ours)
    volume = anonymous(volume, phi_checked) if deidentify else volume
    _refuse_map(volume, std, task, simulate)
    result = reconstruct(
        volume,
        task,
        settings,
        measurement=y,
        simulate=True if simulate else None,
        prior=prior,
        solver=solver,
        options=options,
        plane=plane,
        samples=samples,
        seed=seed,
        device=where,
        out=out,
        fresh=fresh,
        progress=progress,
    )
    if result.status != "diverged":
        ledger.begin_writing(out, [*outputs, story_path(out)])
        _write(result, volume, out, std, report)
    ledger.settle(out)
    return result


def read_scan(source: Path, task: str, reading: Mapping[str, Any]) -> Volume:
    """Read a scan; one whose missing slices are to be filled in may lack them."""
    gaps = {"on_gap": "nan-fill"} if task == "inpaint" and source.is_dir() else {}
    return read(source, **{**gaps, **reading})


def anonymous(volume: Volume, phi_checked: bool) -> Volume:
    """The same scan with its headers de-identified, where it has any.

    Raises:
        Refusal: E_PHI_PIXELS.
    """
    if not isinstance(volume.source, DicomSource):
        return volume
    return replace(volume, source=deidentified(volume.source, phi_checked=phi_checked))


# -- what is written ------------------------------------------------------------------------------


def refuse_outputs(
    source: Path, out: Path, std: Path | None, report: Path | None, overwrite: bool
) -> None:
    """Refuse, before anything is read, what could not be written."""
    ours = ledger.half_written(out)
    named = [(out, (*NIFTI, "")), (std, (*NIFTI, ".dcm")), (report, (".html",))]
    given = [(path, endings) for path, endings in named if path is not None]
    for path, endings in given:
        if not any(str(path).endswith(end) for end in endings if end) and not (
            "" in endings and path.suffix == ""
        ):
            words = ", ".join(end or "a folder for DICOM" for end in endings)
            raise Refusal("E_FORMAT", f"'{path}' ends in '{path.suffix}', expected {words}.")
        refuse_taken(path, source, overwrite=overwrite or path.resolve() in ours)
    check_free(story_path(out), overwrite=overwrite or story_path(out).resolve() in ours)
    if len({path.resolve() for path, _ in given}) < len(given):
        raise Refusal("E_FORMAT", "two outputs have one name; name different files.")


def refuse_taken(path: Path, source: Path, *, overwrite: bool) -> None:
    """Refuse an output that is there, or that would end up in the scan.

    Raises:
        FileExistsError, FileNotFoundError: see `check_free`.
    """
    if path.suffix == "":
        inside = source.is_dir() and source.resolve() in (path.resolve(), *path.resolve().parents)
        if inside:
            raise FileExistsError(f"'{path}' is the scan itself or in it; name another folder.")
        if path.is_dir() and (overwrite or not any(path.iterdir())):
            return  # whether all of it is ours is for the writer to see
        if path.is_dir():
            raise FileExistsError(f"'{path}' holds files; name another folder or pass --overwrite.")
    check_free(path, source=source, overwrite=overwrite)


def check_replaceable(folder: Path, volume: Volume, *, overwrite: bool) -> None:
    """Refuse a folder that holds anything but an earlier result.

    Raises:
        FileExistsError: see `medical.dicom.folder.check_free`.
    """
    headers = volume.source.headers if isinstance(volume.source, DicomSource) else ()
    folders.check_free(folder, headers, overwrite=overwrite)


def _refuse_map(volume: Volume, std: Path | None, task: str, simulate: bool) -> None:
    if std is None or std.suffix != ".dcm":
        return
    if not isinstance(volume.source, DicomSource):
        raise Refusal(
            "E_NO_SOURCE",
            "a parametric map belongs to a DICOM series, and the scan is none; name the std "
            ".nii.gz.",
        )
    if task == "superres" and not simulate:
        raise Refusal(
            "E_GRID_MISMATCH",
            "a parametric map lies on the grid of its series, and super-resolution on a finer one; "
            "name the std .nii.gz.",
        )


def _write(
    result: Restored, volume: Volume, out: Path, std: Path | None, report: Path | None
) -> None:
    """Everything but the output first, so that the output says that all is done."""
    if report is not None:
        from medical import report as reports

        reports.write(result, report, overwrite=True)
    if std is not None and result.std is not None:
        _write_std(result.std, volume, std)
    write_story(out, result.story, overwrite=True)
    simulated = result.truth is not None
    if str(out).endswith(NIFTI):
        text = f"restored{', simulated measurement' if simulated else ''}; not for diagnosis"
        write(result.mean, out, description=text, overwrite=True)
        return
    story = result.story
    write(
        result.mean,
        out,
        description=f"restored{' from simulation' if simulated else ''}",
        algorithm=f"{'Simulated, then restored' if simulated else 'Restored'}, {story['measured']}",
        parameters={
            "noise": f"{story['noise']['std']:.3g} {story['noise']['unit']}",
            "prior": f"{story['prior']['name']} {story['prior']['sha256'][:8]}".strip(),
            "solver": story["solver"]["name"],
            "samples": story["samples"],
            "seed": story["seed"],
        },
        overwrite=True,
    )


def _write_std(spread: Volume, volume: Volume, path: Path) -> None:
    if path.suffix != ".dcm":
        text = "std of the restored scan; not for diagnosis"
        write(spread, path, description=text, dtype="float32", overwrite=True)
        return
    from medical.dicom.parametric_map import write_parametric_map

    write_parametric_map(spread, path, source=volume, overwrite=True)
