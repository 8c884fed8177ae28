"""Files of hyperspectral cubes: what comes out is what went in, or one sentence says why not."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from restore.cubes import axes, files, pictures, scale, stripes
from restore.cubes.cube import Cube, Georeference
from restore.cubes.examine import examine, fill_bands
from restore.cubes.mapinfo import map_info, read_map_info
from restore.cubes.tasks import measured, trusted
from restore.cubes.wavelengths import from_tags, in_nanometres

pytest.importorskip("rasterio")
pytest.importorskip("spectral")

NANOMETRES = tuple(430.0 + 40.5 * i for i in range(12))
UTM = Georeference("EPSG:32616", (20.0, 0.0, 500000.0, 0.0, -20.0, 4480000.0))


def scene(bands=12, height=10, width=14, seed=0):
    """Three materials, `(C, H, W)` in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    i, j = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    maps = torch.stack([torch.cos(0.4 * i), torch.sin(0.3 * j), torch.cos(0.2 * (i + j))])
    cube = torch.einsum("cr,rhw->chw", torch.rand((bands, 3), generator=generator), maps)
    return (cube - cube.min()) / (cube.max() - cube.min())


def whole_numbers(**changes):
    data = (scene() * 4000 + 100).round()
    known = {"wavelengths": NANOMETRES, "georeference": UTM, "dtype": "uint16"}
    return Cube(data=data, **{**known, **changes})


def same_place(a, b):
    from rasterio.crs import CRS

    return (
        np.allclose(a.transform, b.transform, rtol=1e-12)
        and CRS.from_user_input(a.crs).to_epsg() == CRS.from_user_input(b.crs).to_epsg()
    )


# -- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["x.tif", "x.hdr", "x.img", "x.mat"])
@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint8", "float32", "float64"])
def test_what_comes_out_is_what_went_in(tmp_path, name, dtype):
    cube = whole_numbers(dtype=dtype)
    if dtype == "uint8":
        cube = replace(cube, data=(cube.data / 20).round())
    files.write(tmp_path / name, cube)
    again = files.read(tmp_path / name)
    assert torch.equal(again.data, cube.data)
    assert again.dtype == dtype
    assert again.wavelengths == pytest.approx(NANOMETRES)
    assert same_place(again.georeference, UTM)
    assert [p for p in tmp_path.iterdir() if p.name.startswith(".")] == []


@pytest.mark.parametrize("name", ["x.tif", "x.hdr", "x.mat"])
def test_missing_values_keep_their_number(tmp_path, name):
    cube = whole_numbers(dtype="int16", nodata=-999.0)
    cube.data[2, 3, 4] = torch.nan
    files.write(tmp_path / name, cube)
    again = files.read(tmp_path / name)
    assert torch.equal(again.seen, cube.seen)
    assert again.nodata == -999
    assert torch.equal(again.data[cube.seen], cube.data[cube.seen])


@pytest.mark.parametrize("name", ["x.tif", "x.hdr", "x.mat"])
def test_nothing_told_is_nothing_known(tmp_path, name):
    files.write(tmp_path / name, whole_numbers(wavelengths=None, georeference=None))
    again = files.read(tmp_path / name)
    assert again.wavelengths is None
    assert again.georeference is None


def test_an_array_alone_and_the_record_beside_it(tmp_path):
    from restore.cubes.arrays import about
    from restore.measurements import write_story

    cube = whole_numbers()
    files.write(tmp_path / "x.npy", cube)
    with pytest.raises(ValueError, match="which axis holds the bands"):
        files.read(tmp_path / "x.npy")
    assert torch.equal(files.read(tmp_path / "x.npy", bands_axis="first").data, cube.data)
    write_story(tmp_path / "x.npy", {"cube": about(cube)})
    again = files.read(tmp_path / "x.npy")
    assert torch.equal(again.data, cube.data)
    assert again.wavelengths == NANOMETRES
    assert again.georeference == UTM


def test_a_failed_write_leaves_everything_as_it_was(tmp_path):
    path = tmp_path / "x.hdr"
    files.write(path, whole_numbers())
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    cube = whole_numbers()
    cube.data[0, 0, 0] = torch.nan  # no number stands for it
    for name in ("x.hdr", "new.tif", "new.img", "new.mat", "new.npy"):
        with pytest.raises(ValueError, match=r"uint16 has no number.*--fill"):
            files.write(tmp_path / name, cube, overwrite=True)
    with pytest.raises(FileExistsError, match="--overwrite"):
        files.write(tmp_path / "x.img", whole_numbers())
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_an_output_never_replaces_the_input_or_its_header(tmp_path):
    files.write(tmp_path / "x.dat", whole_numbers())
    for name in ("x.dat", "x.hdr", "x.img"):
        with pytest.raises(FileExistsError, match="is the input itself"):
            files.check_output(tmp_path / name, source=tmp_path / "x.dat", overwrite=True)


def test_whole_numbers_are_rounded_and_held_to_their_range():
    data = scene()
    data[0, 0, :4] = torch.tensor([-3.0, 2.6, 300.0, 254.4])
    stored = Cube(data=data, dtype="uint8").stored()
    assert stored[0, 0, :4].tolist() == [0, 3, 255, 254]
    data[0, 0, 0] = 1e30
    assert Cube(data=data, dtype="int64").stored()[0, 0, 0] > 2**62  # no wrap-around


def test_headers_of_other_programs(tmp_path):
    path = tmp_path / "x.hdr"
    files.write(path, whole_numbers(georeference=None))
    text = path.read_text()
    micrometres = ", ".join(f"{w / 1000:.5f}" for w in NANOMETRES)
    start = text.index("wavelength =")
    head, tail = text[:start], text[text.index("}", start) + 1 :]
    tail = tail.replace("Nanometers", "Micrometers")
    path.write_text(f"{head}wavelength = {{{micrometres}}}{tail}\nfwhm = {{{micrometres}}}\n")
    cube = files.read(path)
    assert cube.wavelengths == pytest.approx(NANOMETRES)
    assert len(dict(cube.header)["fwhm"]) == 12
    files.write(tmp_path / "again.hdr", cube)
    assert len(dict(files.read(tmp_path / "again.hdr").header)["fwhm"]) == 12


@pytest.mark.parametrize("interleave", ["bil", "bip", "bsq"])
def test_every_order_of_values_and_bytes(tmp_path, interleave):
    import spectral.io.envi

    cube = scene().numpy()
    spectral.io.envi.save_image(
        str(tmp_path / "x.hdr"),
        np.moveaxis(cube, 0, -1),
        interleave=interleave,
        byteorder="big",
        ext=".raw",
    )
    np.testing.assert_array_equal(files.read(tmp_path / "x.raw").data.numpy(), cube)


def test_map_info_of_a_turned_scene():
    turned = Georeference("EPSG:32733", (17.3, 10.0, 5e5, 10.0, -17.3, 8e6))
    header = map_info(turned)
    assert np.allclose(read_map_info(header).transform, turned.transform)
    del header["coordinate system string"]
    assert read_map_info(header).crs == "EPSG:32733"
    info = ["UTM", "3", "2", "100", "200", "10", "5", "16", "North", "WGS-84"]
    # pixel 3, 2 counted from one has its corner at (100, 200)
    assert read_map_info({"map info": info}).transform == (10, 0, 80, 0, -5, 205)
    assert read_map_info({"map info": ["Arbitrary", "x"]}) is None


def test_finer_pixels_lie_on_the_same_ground():
    cube = whole_numbers()
    grown = cube.derive(torch.zeros(12, 20, 28))
    a, _, c, _, e, f = grown.georeference.transform
    assert (a, e, c, f) == (10, -10, 500000, 4480000)
    assert cube.derive(cube.data).georeference == UTM


@pytest.mark.parametrize(
    ("numbers", "units", "expected"),
    [
        ([0.4, 2.5], "", (400, 2500)),
        ([400, 2500], "", (400, 2500)),
        (["0.4", "2.5"], "um", (400, 2500)),
        ([4000, 5000], "Angstroms", (400, 500)),
        ([1, 2], "Index", None),
        ([], "", None),
        (["red", "green"], "", None),
        ([-1, 2], "nm", None),
    ],
)
def test_units_of_wavelengths(numbers, units, expected):
    assert in_nanometres(numbers, units) == expected


def test_wavelengths_in_the_words_of_a_raster():
    assert from_tags([{}, {}], ["450.5 Nanometers", "500 Nanometers"]) == (450.5, 500)
    central = [{"CENTRAL_WAVELENGTH_UM": "0.4505"}, {"CENTRAL_WAVELENGTH_UM": "0.5"}]
    assert from_tags(central, [None, None]) == (450.5, 500)
    assert from_tags([{}, {}], [None, "500 nm"]) is None


# -- axes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "told", "first"),
    [
        ((9, 9, 20), {}, 20),
        ((20, 9, 9), {}, 20),
        ((9, 8, 20), {"wavelengths": 20}, 20),
        ((20, 8, 9), {"wavelengths": 20}, 20),
        ((9, 8, 20), {"axis": "last"}, 20),
        ((9, 8, 20), {"axis": "first"}, 9),
        ((9, 8, 20), {"axis": "middle"}, 8),
    ],
)
def test_bands_come_first(shape, told, first):
    array = np.arange(np.prod(shape)).reshape(shape)
    found = axes.bands_first(array, **told)
    assert len(found) == first
    rest = [n for n in shape if n != first]
    assert list(found.shape[1:]) == rest  # rows before columns, as they were


@pytest.mark.parametrize(
    ("shape", "told", "words"),
    [
        ((9, 8, 20), {}, "9x8x20 does not tell"),
        ((9, 9, 9), {}, "does not tell"),
        ((9, 8, 20), {"wavelengths": 7}, "does not tell"),
        ((9, 9, 20), {"wavelengths": 9}, "does not tell"),
        ((9, 8), {}, "2 axes"),
        ((9, 8, 20), {"axis": "third"}, "expected first"),
    ],
)
def test_axes_that_nobody_can_tell(shape, told, words):
    with pytest.raises(ValueError, match=words):
        axes.bands_first(np.zeros(shape), **told)


# -- refusals ----------------------------------------------------------------------------------


def write_mat(path, **arrays):
    from scipy.io import savemat

    savemat(path, arrays)


def test_bad_files_are_told_in_one_sentence(tmp_path):
    three = np.zeros((9, 9, 12))
    write_mat(tmp_path / "two.mat", a=three, b=three)
    write_mat(tmp_path / "none.mat", a=np.zeros((3, 3)))
    write_mat(tmp_path / "few.mat", a=np.zeros((9, 9, 7)))
    write_mat(tmp_path / "small.mat", a=np.zeros((5, 5, 12)))
    write_mat(tmp_path / "complex.mat", a=np.full((9, 9, 12), 1j))
    np.save(tmp_path / "object.npy", np.array([{}], dtype=object))
    np.save(tmp_path / "flat.npy", np.zeros((9, 9)))
    for name in ("text.mat", "text.npy", "text.tif", "text.hdr", "other.xyz"):
        (tmp_path / name).write_text("ENVI but not really")
    files.write(tmp_path / "alone.hdr", whole_numbers())
    (tmp_path / "alone.img").unlink()
    files.write(tmp_path / "short.hdr", whole_numbers())
    (tmp_path / "short.img").write_bytes(b"12")
    refused = {
        "two.mat": r"2 arrays of three axes \(a, b\); choose one with --key",
        "none.mat": "0 arrays of three axes; expected one",
        "few.mat": "7 bands, expected at least 8",
        "small.mat": "5x5 pixels, expected at least 8",
        "complex.mat": "complex128 values, expected real",
        "object.npy": "cannot be read as .npy",
        "flat.npy": "2 axes",
        "text.mat": "cannot be read as .mat",
        "text.npy": "cannot be read as .npy",
        "text.tif": "cannot be read as GeoTIFF",
        "text.hdr": "cannot be read as ENVI",
        "other.xyz": "is no cube that can be read",
        "alone.hdr": "are missing; put them beside it",
        "short.hdr": "cannot be read as ENVI",
        "absent.tif": "does not exist",
        ".": "is a folder",
    }
    for name, words in refused.items():
        with pytest.raises((ValueError, OSError), match=words):
            files.read(tmp_path / name)
    assert files.read(tmp_path / "two.mat", key="b").shape == (12, 9, 9)
    with pytest.raises(ValueError, match="no array of three axes named 'c'; it has a, b"):
        files.read(tmp_path / "two.mat", key="c")
    with pytest.raises(ValueError, match="--key names an array"):
        files.read(tmp_path / "text.tif", key="a")
    with pytest.raises(ValueError, match="tells its bands itself"):
        files.read(tmp_path / "text.tif", bands_axis="last")
    with pytest.raises(ValueError, match="cubes are written as"):
        files.write(tmp_path / "x.png", whole_numbers())
    with pytest.raises(FileNotFoundError, match="create it first"):
        files.write(tmp_path / "no" / "x.tif", whole_numbers())
    with pytest.raises(ValueError, match="12 bands and 11 wavelengths"):
        whole_numbers(wavelengths=NANOMETRES[1:])


# -- what is wrong -----------------------------------------------------------------------------


def test_what_is_wrong_with_a_cube_is_found():
    data = scene(height=32, width=32)
    noise = torch.randn(data.shape, generator=torch.Generator().manual_seed(1))
    data += 0.01 * noise
    data[2] = torch.nan
    data[5] = 0.3
    data[7] = noise[7]
    data[:, 3, 4] = torch.nan
    data[1, 9, 9] = torch.inf
    data = torch.where(data.isfinite(), data, torch.nan)
    found = examine(Cube(data=data))
    assert (found.missing, found.dead, found.noisy) == ((2,), (5,), (7,))
    assert found.lost == (2, 5)
    # the pixel in the ten bands that live, and one entry
    assert (found.gaps, found.pixels) == (10 + 1, 1)
    told = " ".join(found.sentences())
    assert "1 band without any value: 3." in told  # people count from one
    assert "1 pixel without a value" in told
    assert examine(Cube(data=scene())).sentences() == []
    with pytest.raises(ValueError, match="no value at all"):
        examine(Cube(data=torch.full((8, 8, 8), torch.nan)))


def test_bands_are_filled_along_the_spectrum():
    at = torch.tensor([400.0, 500, 700, 800, 1000, 1100, 1150, 1300])
    data = at[:, None, None].expand(8, 2, 2).clone()
    broken = data.clone()
    broken[[0, 2, 3]] = torch.nan
    fill_bands(broken, (2, 3), tuple(at.tolist()))
    assert torch.equal(broken[1:], data[1:])  # a linear spectrum comes back
    fill_bands(broken, (0,), tuple(at.tolist()))
    assert torch.equal(broken[0], data[1])  # nothing beyond the end: the nearest


def test_bands_scaled_to_their_range_and_back():
    cube = whole_numbers()
    cube.data[3] = 7.0
    cube.data[4, 2, 2] = torch.nan
    units = scale.of_ranges(cube)
    u = units.to_unit(cube.data)
    assert float(u[cube.seen].min()) == 0
    assert float(u[cube.seen].max()) == 1
    assert bool((u[3] == 0).all())
    torch.testing.assert_close(units.to_own(u), cube.data, equal_nan=True)


def test_noise_of_all_bands_becomes_alike():
    data = scene(bands=40, height=64, width=64)
    levels = torch.linspace(0.01, 0.03, 40)
    noise = torch.randn(data.shape, generator=torch.Generator().manual_seed(1))
    cube = Cube(data=500 + 80 * (data + levels[:, None, None] * noise))
    good = torch.ones(40, dtype=torch.bool)
    found = scale.band_noise(cube.data / 80, cube.seen)
    # a std of 4096 values has a relative error of 1 / sqrt(2 * 4096) = 0.011; the residual of a
    # regression on noisy bands also holds some of theirs, 3 spectra of 40 bands
    torch.testing.assert_close(found.float(), levels, rtol=0.25, atol=0)
    units = scale.of_noise(cube, good)
    even = 80 * levels / units.width
    assert float(even.max() / even.min()) < 1.3 < float(levels.max() / levels.min())
    u = units.to_unit(cube.data)
    assert float(u.min()) > -1e-5
    assert float(u.max()) < 1 + 1e-5
    assert scale.band_noise(cube.data[:, :4, :5], cube.seen[:, :4, :5]) is None


# -- tasks -------------------------------------------------------------------------------------


def test_the_operator_of_each_task_sees_what_the_file_holds():
    u = scene()
    seen = torch.ones_like(u, dtype=torch.bool)
    seen[1, 2, 3] = False
    for task in ("denoise", "complete"):
        found = measured(u, seen, task)
        assert float(found.y[0, 1, 2, 3]) == 0
        assert torch.equal(found.operator(0.1).A(u[None]), torch.where(seen, u, 0)[None])
    grown = measured(u, torch.ones_like(seen), "superres", factor=2).operator(0.1)
    assert grown.A(torch.zeros(1, 12, 20, 28)).shape == (1, 12, 10, 14)
    with pytest.raises(ValueError, match="no entry of the cube is missing"):
        measured(u, torch.ones_like(seen), "complete")
    with pytest.raises(ValueError, match="--task complete first"):
        measured(u, seen, "superres")
    with pytest.raises(ValueError, match="task"):
        measured(u, seen, "sharpen")


def test_what_the_user_trusts(tmp_path):
    shape = (12, 10, 14)
    assert trusted(shape, mask=None, keep=None, seed=0) is None
    kept = trusted(shape, mask=None, keep=0.3, seed=0)
    assert kept.sum((1, 2)).tolist() == [42] * 12
    plane = np.zeros((10, 14))
    plane[3] = 2
    np.save(tmp_path / "m.npy", plane)
    assert int(trusted(shape, mask=tmp_path / "m.npy", keep=None, seed=0).sum()) == 12 * 14
    np.save(tmp_path / "wrong.npy", plane.T)
    np.save(tmp_path / "zero.npy", 0 * plane)
    (tmp_path / "text.npy").write_text("no")
    for name, words in {"wrong": "expected", "zero": "trusts nothing", "text": "no mask"}.items():
        with pytest.raises(ValueError, match=words):
            trusted(shape, mask=tmp_path / f"{name}.npy", keep=None, seed=0)
    with pytest.raises(ValueError, match="give one"):
        trusted(shape, mask=tmp_path / "m.npy", keep=0.3, seed=0)
    with pytest.raises(FileNotFoundError):
        trusted(shape, mask=tmp_path / "absent.npy", keep=None, seed=0)


@pytest.mark.parametrize("direction", ["vertical", "horizontal"])
@pytest.mark.parametrize("kind", ["gains", "offsets"])
def test_stripes_are_found(kind, direction):
    u = 0.2 + 0.8 * scene(bands=32, height=48, width=40)
    generator = torch.Generator().manual_seed(3)
    lines = 0.1 * torch.randn((32, 1, 40), generator=generator)
    striped = u * (1 + lines) if kind == "gains" else u + lines
    striped[:, :, 7:9] = 0
    striped = striped + 0.01 * torch.randn(u.shape, generator=generator) * (striped != 0)
    if direction == "horizontal":
        striped, lines = striped.transpose(1, 2), lines.transpose(1, 2)
    found = stripes.find(striped, torch.ones_like(striped, dtype=torch.bool), direction)
    assert found.kind == kind
    assert int((~found.alive).sum()) == 2 * 32
    ours = found.gains / (1 + lines) if kind == "gains" else found.offsets - lines
    across = 1 if direction == "horizontal" else 2
    ours = ours - ours.mean(across, keepdim=True)  # the level of a whole band is no stripe
    # inside the subspace, at most 4 directions of 32, stripes stay: sqrt(4 / 32) = 0.35 of them;
    # gains multiply what varies along a line as well, and are known less well
    left = float(ours[found.alive].std() / lines[found.alive].std())
    assert left < (0.5 if kind == "offsets" else 0.7)
    assert kind in found.sentence()


def test_a_cube_without_lines_that_live_is_refused():
    u = scene()
    u[2] = 0.5
    with pytest.raises(ValueError, match="hardly a line"):
        stripes.find(u, torch.ones_like(u, dtype=torch.bool), "vertical")


# -- pictures ----------------------------------------------------------------------------------


def test_colours_are_the_nearest_bands():
    cube = whole_numbers()
    red, green, blue = pictures.colour_bands(cube)
    assert [NANOMETRES[i] for i in (red, green, blue)] == [632.5, 551.5, 470.5]
    assert pictures.colour_bands(cube, lost=(red,))[0] != red
    infrared = whole_numbers(wavelengths=tuple(w + 900 for w in NANOMETRES))
    bands = pictures.colour_bands(infrared)
    assert bands[0] > bands[1] > bands[2]  # spread, long waves red
    broken = whole_numbers()
    broken.data[:, 0, 0] = torch.nan
    sheet = pictures.preview(broken, cube.derive(torch.rand(12, 20, 28)))
    assert sheet.shape == (1, 3, 20, 28 + 4 + 28)
    assert 0 <= float(sheet.min()) <= float(sheet.max()) <= 1


def test_spectra_show_wavelengths():
    cube = whole_numbers()
    figure = pictures.spectra(cube, cube.derive(cube.data + 1), cube)
    lines = figure.axes[0].get_lines()
    assert [line.get_label() for line in lines] == ["before", "truth", "after"]
    assert tuple(lines[0].get_xdata()) == NANOMETRES
    assert list(lines[2].get_ydata()) == pytest.approx((cube.data[:, 2, 3] + 1).tolist())
    assert figure.axes[2].get_xlabel() == "wavelength, nm"
