"""GeoTIFF by rasterio, an optional dependency."""

from pathlib import Path
from typing import Any

from restore.cubes.cube import Cube, Georeference, values
from restore.cubes.wavelengths import from_tags
from restore.files import atomic


def read(path: Path) -> Cube:
    """Read all bands.

    Raises:
        ValueError: not a GeoTIFF, or damaged; rasterio is not installed.
    """
    rasterio = _rasterio()
    try:
        with _quiet(), rasterio.open(path) as file:
            array = file.read()
            tags = [
                {**file.tags(i), **file.tags(i, ns="IMAGERY")} for i in range(1, file.count + 1)
            ]
            descriptions, profile = file.descriptions, file.profile
            crs, transform = file.crs, tuple(file.transform)[:6]
            scaled = any(s != 1 for s in file.scales) or any(o != 0 for o in file.offsets)
            header = {"scales": file.scales, "offsets": file.offsets} if scaled else {}
            points = bool(file.gcps[0])
    except rasterio.errors.RasterioError as error:
        reason = " ".join(str(error).replace(str(path), "the file").split()).rstrip(".")
        raise ValueError(f"'{path}' cannot be read as GeoTIFF ({reason}); save it again.") from None
    where = Georeference(crs.to_wkt() if crs else "", transform)
    told = bool(crs) or transform != (1, 0, 0, 0, 1, 0)
    notes = ["Ground control points are not kept; warp the cube first."] if points else []
    return Cube(
        data=values(array, profile["nodata"]),
        wavelengths=from_tags(tags, descriptions),
        georeference=where if told else None,
        dtype=array.dtype.name,
        nodata=profile["nodata"],
        header=tuple(header.items()),
        notes=tuple(notes),
        path=path,
    )


def write(path: Path, cube: Cube, *, overwrite: bool = False) -> None:
    """Write a tiled, compressed file with wavelengths as tags of the bands."""
    rasterio = _rasterio()
    array, where = cube.stored(), cube.georeference
    options: dict[str, Any] = {}
    if where is not None:
        options["transform"] = rasterio.Affine(*where.transform)
        options["crs"] = rasterio.CRS.from_user_input(where.crs) if where.crs else None
    with atomic(path, overwrite=overwrite) as partial, _quiet():
        with rasterio.open(
            partial,
            "w",
            driver="GTiff",
            count=len(array),
            height=array.shape[1],
            width=array.shape[2],
            dtype=array.dtype.name,
            nodata=cube.nodata,
            compress="deflate",
            interleave="band",
            BIGTIFF="IF_SAFER",
            **options,
        ) as file:
            file.write(array)
            for i, wavelength in enumerate(cube.wavelengths or (), start=1):
                file.set_band_description(i, f"{wavelength:g} nm")
                file.update_tags(i, wavelength=f"{wavelength:.10g}", wavelength_units="Nanometers")
            header = dict(cube.header)
            if len(header.get("scales", ())) == len(array):
                file.scales, file.offsets = header["scales"], header["offsets"]


def _rasterio() -> Any:
    try:
        import rasterio
        import rasterio.errors
    except ImportError as error:
        raise ValueError(
            "GeoTIFF needs rasterio, which is not installed; pip install restore-imaging[cubes]."
        ) from error
    return rasterio


def _quiet() -> Any:
    """An array without georeference is no reason to warn, and may come and go."""
    import warnings

    import rasterio.errors

    return warnings.catch_warnings(
        action="ignore", category=rasterio.errors.NotGeoreferencedWarning
    )
