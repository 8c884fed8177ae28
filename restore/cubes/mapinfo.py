"""ENVI's words for where pixels lie."""

import math
import re
from collections.abc import Mapping
from typing import Any

from restore.cubes.cube import Georeference


def read_map_info(header: Mapping[str, Any]) -> Georeference | None:
    """Where the pixels lie, by "map info" and "coordinate system string"; None where untold."""
    info = header.get("map info")
    if not isinstance(info, list | tuple) or len(info) < 7:
        return None
    try:
        column, row, east, north, dx, dy = (float(word) for word in info[1:7])
    except ValueError:
        return None
    options = dict(re.findall(r"(\w+)\s*=\s*([^,]+)", ",".join(map(str, info[7:]))))
    turn = math.radians(float(options.get("rotation", 0)))
    a, b = dx * math.cos(turn), dy * math.sin(turn)
    d, e = dx * math.sin(turn), -dy * math.cos(turn)
    # the reference pixel is numbered from 1, whole numbers being upper left corners
    c = east - a * (column - 1) - b * (row - 1)
    f = north - d * (column - 1) - e * (row - 1)
    return Georeference(_crs(header, [str(word).strip() for word in info]), (a, b, c, d, e, f))


def map_info(where: Georeference) -> dict[str, Any]:
    """What a header says of where the pixels lie."""
    a, b, c, d, e, f = where.transform
    dx, dy = math.hypot(a, d), math.hypot(b, e)
    turn = math.degrees(math.atan2(d, a))
    name, rest = _names(where.crs)
    info = [name, "1", "1", *(f"{v:.12g}" for v in (c, f, dx, dy)), *rest]
    if abs(turn) > 1e-9:
        info.append(f"rotation={turn:.12g}")
    found: dict[str, Any] = {"map info": info}
    wkt = _wkt(where.crs)
    if wkt:
        found["coordinate system string"] = f"{{{wkt}}}"  # a list would lose its commas
    return found


def _crs(header: Mapping[str, Any], info: list[str]) -> str:
    told = header.get("coordinate system string")
    if told:
        return told if isinstance(told, str) else ",".join(map(str, told))
    known = "WGS-84" in info or "WGS 84" in info
    if info[0].upper() == "UTM" and known and len(info) > 8:
        return f"EPSG:{326 if info[8].lower().startswith('n') else 327}{int(info[7]):02d}"
    return "EPSG:4326" if info[0].lower().startswith("geographic") and known else ""


def _names(crs: str) -> tuple[str, list[str]]:
    code = _epsg(crs)
    if code is None:
        return "Arbitrary", []
    if code // 100 in (326, 327) and 1 <= code % 100 <= 60:
        north = "North" if code // 100 == 326 else "South"
        return "UTM", [str(code % 100), north, "WGS-84", "units=Meters"]
    return (
        ("Geographic Lat/Lon", ["WGS-84", "units=Degrees"]) if code == 4326 else ("Arbitrary", [])
    )


def _epsg(crs: str) -> int | None:
    if match := re.fullmatch(r"EPSG:(\d+)", crs):
        return int(match[1])
    try:
        from rasterio.crs import CRS

        return CRS.from_user_input(crs).to_epsg() if crs else None
    except Exception:  # not installed, or unknown to it
        return None


def _wkt(crs: str) -> str:
    if not crs.startswith("EPSG:"):
        return crs
    try:
        from rasterio.crs import CRS

        return CRS.from_user_input(crs).to_wkt(version="WKT1_ESRI")
    except Exception:  # not installed: the map info says it too
        return ""
