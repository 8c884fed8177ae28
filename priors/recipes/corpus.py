"""Training corpus of the photograph prior: real photographs that ship inside Debian packages.

No image is downloaded from the web and none belongs to a classic test set. Fetch and unpack the
packages named in `SOURCES` (Debian 12 main; versions and licences in `corpus.toml`) without
installing them:

    apt-get download lomiri-wallpapers-16.04 gcompris-qt-data ...
    for deb in *.deb; do dpkg -x "$deb" "unpacked/${deb%%_*}"; done
    python -m priors.recipes.corpus unpacked corpus.npz

The result holds arrays `scene_0000`, `scene_0001`, ...: uint8 RGB of shape (H, W, 3). The names of
the originals go to `corpus.txt` beside it, one a line in the same order. The log ends with the
digest of the originals, which `corpus.toml` records: equal digests mean equal corpora.

Why each step is there:

* Allow-lists. Most files in these packages are drawings, renderings, logos or signs; flat colours
  teach a denoiser to flatten. The lists were made by looking at contact sheets.
* Exclude list (`EXCLUDED`). What the globs catch but must not: drawings and paintings, objects cut
  out on an even backdrop, copies, files whose only licence is the GFDL.
* Images with transparent pixels are cut-outs, with garbage under the transparency.
* One grey value on more than a fifth of the pixels means a uniform background or a clipped sky.
* Averaging over 2x2 pixels removes JPEG and WebP artefacts, demosaicing traces and most sensor
  noise: scenes are the "clean" targets, and noise left in them is learned as if it were image.
* A short side below 128 afterwards leaves no room for random crops. The small photographs of
  GCompris are averaged by 1.5 to 2 only, to reach 128: they are many, and the best documented.
"""

import argparse
import hashlib
import io
import logging
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

log = logging.getLogger(__name__)

Pixels = NDArray[np.uint8]

MIN_SHORT_SIDE = 128
"""Smallest short side of a scene, in pixels."""
REDUCTION = 2.0
"""How much smaller a scene is than its original."""
MIN_REDUCTION = 1.5
"""The same for originals that `REDUCTION` would make too small."""
MAX_FLAT_SHARE = 0.2
"""Largest share of pixels that one grey value may cover."""
PICTURES = (".jpg", ".jpeg", ".png", ".webp")
"""File name endings that are decoded."""

TEXTURES = """
    library/stklib_deadBranch_a/trees_bark_001_col.jpg
    textures/HortonRockWall.jpg
    textures/HortonRockWall2.jpg
    textures/HortonStone6.jpg
    textures/Paving_stones_2.jpg
    textures/TiZeta_barkM.png
    textures/canyon_boards.png
    textures/city_bricks.png
    textures/city_rock.jpg
    textures/concrete2.png
    textures/cracked-earth-texture.jpg
    textures/dirt.jpg
    textures/earth.png
    textures/grass2.jpg
    textures/hacienda_ground.jpg
    textures/hd_palmTreeBark_a_Albedo.png
    textures/hd_rock_01_d.png
    textures/marble.jpg
    textures/palmBark.jpg
    textures/racetrack_grass.jpg
    textures/rockMountain.jpg
    textures/rock_mountain.jpg
    textures/roof.png
    textures/sky.jpg
    textures/snowrock.jpg
    textures/snowyrock.png
    textures/stk_generic_asianRoof_a.png
    textures/stk_generic_bedRock_a.png
    textures/stk_generic_brickA.png
    textures/stk_generic_brickRoad_a.png
    textures/stk_generic_cardboard_a.png
    textures/stk_generic_clouds_a.png
    textures/stk_generic_dirtGrassA.png
    textures/stk_generic_gravalSnow_a.png
    textures/stk_generic_hexaBasaltRoad_a.png
    textures/stk_generic_oldbricks_a.png
    textures/stk_generic_rockSnow_a.png
    textures/stk_generic_rock_a.png
    textures/stk_generic_rock_b.png
    textures/stk_generic_wallRock_a.png
    textures/stk_generic_wickerA.png
    textures/stk_karstRock_a.png
    textures/stklama_gravelSide_a.png
    textures/stklama_road_a.png
    textures/stklib_entranceGuardianMale_a.png
    textures/stkt_rustedMetal_a.png
    textures/stktex_cliff_a.png
    textures/stktex_generic_WoodG.png
    textures/stktex_generic_aztekWall_a.png
    textures/stktex_generic_rockA.png
    textures/stktex_generic_underwaterRock_a.png
    textures/stktex_palmTreeBark_a.png
    textures/stktex_treeBark_a.png
    textures/stktex_treeBark_b.png
    textures/tree_cut.jpg
    textures/wood_planks1.jpg
    tracks/ancient_colosseum_labyrinth/3td_BrickOldRound_01.jpg
    tracks/ancient_colosseum_labyrinth/wall.png
    tracks/black_forest/brick_wall_06.jpg
    tracks/black_forest/forest_floor.jpg
    tracks/black_forest/rock_gray.jpg
    tracks/fortmagma/wallpaper_mansion.png
    tracks/introcutscene/grass.jpg
    tracks/introcutscene2/sign_backside.jpg
    tracks/lighthouse/lighthouseRoof_diff.png
    tracks/lighthouse/rock_grey.png
    tracks/minigolf/trunk_bark.png
    tracks/overworld/metaldoor.jpg
    tracks/overworld/wall.png
    tracks/sandtrack/sand.png
    tracks/scotland/Mossy_wall.png
    tracks/scotland/brick1.png
    tracks/scotland/skybox_side.png
    tracks/snowtuxpeak/oldmetal.png
    tracks/soccer_field/racetrack_sky.jpg
    tracks/stadium/racetrack_roof.jpg
    tracks/stk_enterprise/img_0572.png
    tracks/volcano_island/road2.jpg
    tracks/volcano_island/wall2.jpg
    tracks/xr591/basic-wall.png
    tracks/zengarden/landscapeMountFudji.jpg
""".split()
"""The photographed surfaces among the textures of SuperTuxKart; tinted copies left out."""

SOURCES: dict[str, tuple[str, ...]] = {
    "lomiri-wallpapers-16.04": ("usr/share/backgrounds/*.jpg",),
    "lomiri-wallpapers-20.04": ("usr/share/backgrounds/Kleiber_by_Lukas_Baubkus.jpg",),
    "mate-backgrounds": ("usr/share/backgrounds/mate/nature/*.jpg",),
    "plasma-workspace-wallpapers": ("usr/share/wallpapers/*/contents/images/2560x1600.jpg",),
    "lxqt-themes": tuple(
        f"usr/share/lxqt/wallpapers/{stem}.*"
        for stem in (
            "Butterfly-Kenneth-Wimer Valendas after-the-rain appleflower beam butterfly cloud "
            "drop flowers fog this-is-not-windows"
        ).split()
    ),
    "palapeli-data": ("usr/share/palapeli/collection/*.jpg",),
    "libjxl-testdata": (
        "usr/share/libjxl-testdata/jxl/flower/flower.png",
        "usr/share/libjxl-testdata/external/wesaturate/500px/*_srgb8.png",
    ),
    "gcompris-qt-data": ("usr/share/gcompris-qt/rcc/*.rcc",),
    "supertuxkart-data": tuple(f"usr/share/games/supertuxkart/data/{name}" for name in TEXTURES),
}
"""For each package, the globs of its candidate files."""

EXCLUDED: tuple[str, ...] = (
    # renderings, drawings and paintings
    "*/analogpattern_by_*",
    "*/umang_by_*",
    "plasma-workspace-wallpapers/*/Autumn/*",
    "*/babyshapes/*",
    "*/categorization/resource/images/alphabets/*",
    "*/categorization/resource/images/numbers/*",
    "*/details/resource/image/Eglise_dAuvers*",
    "*/details/resource/image/Gogh*",
    "*/details/resource/image/Portrait*",
    "*/details/resource/image/*Van*Gogh*",
    "*/digital_electricity/*",
    "*/paintings/*",
    # objects on an even backdrop
    "*/categorization/resource/images/others/*",
    "*/categorization/resource/images/tools/*",
    "*/louis-braille/resource/braille_ball.*",
    "*/explore_world_music/resource/music/middleeast.*",
    # small copies of photographs that are there in a larger size
    "*/categorization/resource/images/monuments/brandenburgGate.*",
    "*/categorization/resource/images/monuments/colosseum.*",
    "*/categorization/resource/images/monuments/greatPyramid.*",
    # GFDL only (for the puzzles of Palapeli, the .desktop file of each says so)
    "palapeli-data/*/castle-maintenon.*",
    "palapeli-data/*/panther-chameleon-female.*",
    "*/explore_world_animals/resource/animals/kangaroo.*",
)
"""Patterns, over `package/path`, of candidates that are not photographs or not wanted."""


@dataclass(frozen=True)
class Original:
    """One picture file as it ships.

    Attributes:
        name: `package/path`; inside a Qt bundle the path goes on after the bundle's name.
        data: the bytes of the file.
    """

    name: str
    data: bytes


def read_qt_bundle(bundle: bytes) -> Iterator[tuple[str, bytes]]:
    """Yields the path and the bytes of every file in a Qt resource bundle (`.rcc`).

    Args:
        bundle: the content of the bundle; files compressed with Zstandard are skipped.
    """
    magic, version, tree, data, names = struct.unpack_from(">4s4I", bundle)
    if magic != b"qres":
        raise ValueError("not a Qt resource bundle")
    node_size = 22 if version >= 2 else 14  # version 2 added a modification time

    def walk(node: int, parent: str) -> Iterator[tuple[str, bytes]]:
        at = tree + node * node_size
        name_at, flags = struct.unpack_from(">IH", bundle, at)
        length = struct.unpack_from(">H", bundle, names + name_at)[0]
        start = names + name_at + 6  # after the length and a hash
        path = f"{parent}/{bundle[start : start + 2 * length].decode('utf-16-be')}"
        if flags & 2:  # a folder
            count, first = struct.unpack_from(">II", bundle, at + 6)
            for child in range(first, first + count):
                yield from walk(child, path if node else "")
        elif not flags & 4:
            offset = data + struct.unpack_from(">I", bundle, at + 10)[0]
            size = struct.unpack_from(">I", bundle, offset)[0]
            content = bundle[offset + 4 : offset + 4 + size]
            yield path.lstrip("/"), zlib.decompress(content[4:]) if flags & 1 else content

    yield from walk(0, "")


def list_originals(unpacked: Path) -> Iterator[Original]:
    """Yields the candidate pictures in a fixed order, without the excluded ones.

    Args:
        unpacked: the folder with one unpacked package per sub-folder, named like the package.
    """
    for package, globs in SOURCES.items():
        root = unpacked / package
        if not root.is_dir():
            log.warning("package %s is not there", package)
        files = sorted({file for glob in globs for file in root.glob(glob) if file.is_file()})
        for file in files:
            name = f"{package}/{file.relative_to(root).as_posix()}"
            if file.suffix == ".rcc":
                inner = sorted(read_qt_bundle(file.read_bytes()))
                found = [Original(f"{name}/{path}", data) for path, data in inner]
            else:
                found = [Original(name, file.read_bytes())]
            yield from (original for original in found if is_wanted(original.name))


def is_wanted(name: str) -> bool:
    """Says whether a file is a picture and not on the exclude list."""
    is_picture = name.lower().endswith(PICTURES)
    return is_picture and not any(fnmatch(name, pattern) for pattern in EXCLUDED)


def decode(data: bytes) -> Pixels | None:
    """Decodes a picture to RGB; None for cut-outs, that is when any pixel is not opaque."""
    with Image.open(io.BytesIO(data)) as picture:
        if picture.has_transparency_data:
            alpha = picture.convert("RGBA").getchannel("A")
            if alpha.getextrema() != (255, 255):
                return None
        return np.asarray(picture.convert("RGB"))


def flat_share(rgb: Pixels) -> float:
    """Share of the pixels that have the most frequent grey value."""
    grey = np.asarray(Image.fromarray(rgb).convert("L"))
    return float(np.bincount(grey.ravel(), minlength=256).max() / grey.size)


def reduce(rgb: Pixels) -> Pixels | None:
    """Averages an image down by `REDUCTION` and crops it to even sides.

    Small images are reduced less, by `MIN_REDUCTION` at least, so that their short side stays at
    `MIN_SHORT_SIDE`; None if even that leaves it shorter.

    Args:
        rgb: image of shape (H, W, 3).
    """
    factor = min(REDUCTION, min(rgb.shape[:2]) / MIN_SHORT_SIDE)
    if factor < MIN_REDUCTION:
        return None
    # the box that is averaged must hold whole output pixels: cut the rest off at right and bottom
    height, width = (int(side / factor + 1e-6) // 2 * 2 for side in rgb.shape[:2])
    box = (0, 0, width * factor, height * factor)
    reduced = Image.fromarray(rgb).resize((width, height), Image.Resampling.BOX, box)
    return np.asarray(reduced)


def make_scene(data: bytes) -> Pixels | None:
    """Turns the bytes of a picture into a scene, or None if a filter drops it."""
    rgb = decode(data)
    if rgb is None or flat_share(rgb) > MAX_FLAT_SHARE:
        return None
    return reduce(rgb)


def digest(hashes: set[str]) -> str:
    """SHA-256 over the sorted SHA-256 hex digests of the originals, one per line."""
    return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()


def build(unpacked: Path) -> tuple[dict[str, Pixels], str]:
    """Builds the corpus.

    Args:
        unpacked: the folder with one unpacked package per sub-folder.

    Returns:
        The scenes by original name, and the digest of the originals used.
    """
    scenes: dict[str, Pixels] = {}
    hashes: set[str] = set()
    for original in tqdm(list_originals(unpacked), unit=" files"):
        identity = hashlib.sha256(original.data).hexdigest()
        if identity in hashes:  # packages repeat files under several names
            continue
        scene = make_scene(original.data)
        if scene is not None:
            scenes[original.name] = scene
            hashes.add(identity)
    return scenes, digest(hashes)


def save(scenes: dict[str, Pixels], target: Path) -> None:
    """Writes the scenes, uncompressed, and their names; under temporary names first.

    Args:
        scenes: the scenes by original name.
        target: the `.npz` file; the names go to the `.txt` file beside it.
    """
    partial = target.with_name(f".{target.name}.partial")
    arrays = {f"scene_{index:04d}": scene for index, scene in enumerate(scenes.values())}
    with partial.open("wb") as file:
        np.savez(file, **arrays)  # pyright: ignore[reportArgumentType]
    partial.replace(target)
    partial.write_text("".join(f"{name}\n" for name in scenes), encoding="utf-8")
    partial.replace(target.with_suffix(".txt"))


def main() -> None:
    """Command line: `python -m priors.recipes.corpus UNPACKED_DIR corpus.npz`."""
    parser = argparse.ArgumentParser(description="Build the training corpus of photographs.")
    parser.add_argument("unpacked", type=Path, help="folder of unpacked packages")
    parser.add_argument("target", type=Path, help="file to write, .npz")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    scenes, identity = build(arguments.unpacked)
    save(scenes, arguments.target)
    megapixels = sum(scene.shape[0] * scene.shape[1] for scene in scenes.values()) / 1e6
    log.info("%d scenes, %.1f megapixels, digest %s", len(scenes), megapixels, identity)


if __name__ == "__main__":
    main()
