"""`restore volume`: a scan in, a restored scan, its std and a page about both out."""

from pathlib import Path
from typing import Annotated, Any

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
from restore.commands.options import AsJson, Device, Overwrite, Prior, Quiet, Samples, Seed, Solver
from restore.console import print_json, say


def volume(
    source: Scan,
    out: Annotated[
        Path, typer.Option("-o", "--out", help=".nii, .nii.gz, or a folder for a DICOM series.")
    ],
    task: Annotated[
        str, typer.Option(help="denoise, superres, inpaint; ct-sparse, ct-limited, mri.")
    ],
    noise: Annotated[
        float | None,
        typer.Option(metavar="S", help="Std of the noise in units of the scan; CT: mm of water."),
    ] = None,
    angles: Annotated[int | None, typer.Option(help="Views of CT: 8, or 90 if limited.")] = None,
    arc: Annotated[float | None, typer.Option(help="Of the views: 180 degrees, or 90.")] = None,
    acceleration: Annotated[float | None, typer.Option(help="Of MRI, 4.")] = None,
    vary: Annotated[
        bool, typer.Option("--vary", help="Another MRI pattern in every slice.")
    ] = False,
    factor: Annotated[int | None, typer.Option(help="Thin slices in a thick one, 4.")] = None,
    missing: Annotated[
        str | None, typer.Option(metavar="10-14,20", help="Missing slices, from 0.")
    ] = None,
    measurements: Annotated[
        Path | None, typer.Option(help="(1, slices, ...) as .npy or .safetensors.")
    ] = None,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Damage IN first, and compare with it.")
    ] = False,
    std: Annotated[
        Path | None, typer.Option(help="Std of the result: .nii, .nii.gz, or .dcm.")
    ] = None,
    report: Annotated[Path | None, typer.Option(help="Page with pictures, .html.")] = None,
    samples: Samples = 4,
    prior: Prior = None,
    solver: Solver = None,
    steps: Annotated[int | None, typer.Option(help="Of the solver.")] = None,
    z_prior: Annotated[
        str | None, typer.Option(help="Between slices: tv, quadratic, none.")
    ] = None,
    z_weight: Annotated[float | None, typer.Option(help="Of that, for example 0.01.")] = None,
    plane: Annotated[
        str | None, typer.Option(help="Of the slices: axial, coronal or sagittal.")
    ] = None,
    series: Series = None,
    frame: Frame = None,
    modality: Modality = None,
    units: Units = None,
    on_gap: OnGap = None,
    on_tilt: OnTilt = None,
    orientation: Orientation = None,
    deidentify: Deidentify = False,
    phi_checked: PhiChecked = False,
    seed: Seed = 0,
    device: Device = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Discard unfinished work on OUT.")] = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Restore a scan, slices tied together, on its own grid.

    denoise, superres and inpaint: IN is the measurement. ct-sparse, ct-limited and mri: it comes
    from --measurements, line integrals in mm of water or k-space; without, it is simulated from
    IN, which OUT, the report and OUT.json say. OUT is the mean of the samples; denoise knows the
    posterior mean without, and works out its std where --samples is more than 1. A run that is
    killed goes on when it is asked for again. Research use, not for diagnosis.
    """
    from medical.reconstruct.filework import restore_scan
    from medical.reconstruct.settings import Settings, slice_numbers

    if plane not in (None, "axial", "coronal", "sagittal"):
        raise ValueError(f"--plane is '{plane}', expected axial, coronal or sagittal.")
    options: dict[str, Any] = {"steps": steps, "z_prior": z_prior, "lambda_rel": z_weight}
    result = restore_scan(
        source,
        out,
        task,
        Settings(
            noise=noise,
            angles=angles,
            arc=arc,
            acceleration=acceleration,
            vary=vary,
            factor=factor,
            missing=() if missing is None else slice_numbers(missing),
        ),
        std=std,
        report=report,
        measurements=measurements,
        simulate=simulate,
        reading=reading(
            series=series,
            frame=frame,
            modality=modality,
            units=units,
            on_gap=on_gap,
            on_tilt=on_tilt,
            orientation=orientation,
        ),
        prior=prior,
        solver=solver,
        options={name: value for name, value in options.items() if value is not None},
        plane=plane,  # pyright: ignore[reportArgumentType]
        samples=samples,
        seed=seed,
        device=device,
        deidentify=deidentify,
        phi_checked=phi_checked,
        fresh=fresh,
        overwrite=overwrite,
        progress=False if quiet else None,
    )
    if as_json:
        print_json(dict(result.story))
    if result.status == "diverged":
        say(f"restore: diverged, nothing was written: {result.remedy}.", to_stderr=True)
        raise typer.Exit(1)
    if not quiet:
        from medical.reconstruct.words import summary

        written = [str(path) for path in (out, std, report) if path is not None]
        say(f"{summary(result)}\nWrote {' and '.join(written)}.", to_stderr=as_json)
