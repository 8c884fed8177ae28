"""Photographs survive the way in and out; what would be guessed at is refused."""

import contextlib
import io
import struct
import zlib

import numpy as np
import PIL.Image
import pytest
import tifffile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from restore import images
from restore.files import atomic


def pixels(height=5, width=7, channels=3, dtype=np.uint8, seed=0):
    rng = np.random.default_rng(seed)
    if dtype == np.float32:
        return rng.random((height, width, channels), np.float32)
    return rng.integers(0, np.iinfo(dtype).max, (height, width, channels), dtype, endpoint=True)


def to_tensor(array):
    scale = {"uint8": 255, "uint16": 65535}.get(array.dtype.name, 1)
    return torch.tensor(array / scale, dtype=torch.float32).permute(2, 0, 1)[None]


def save(path, array, **options):
    squeezed = array[..., 0] if array.shape[2] == 1 else array
    if path.suffix == ".tif":
        extra = ["unassalpha"] if array.shape[2] in (2, 4) else None
        photometric = "rgb" if array.shape[2] > 2 else "minisblack"
        options = {"photometric": photometric, "extrasamples": extra} | options
        options.setdefault("planarconfig", "contig" if array.shape[2] > 1 else None)
        tifffile.imwrite(path, squeezed, **options)
    else:
        PIL.Image.fromarray(squeezed).save(path, **options)
    return path


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    suffix=st.sampled_from([".png", ".tif"]),
    channels=st.sampled_from([1, 2, 3, 4]),
    dtype=st.sampled_from([np.uint8, np.uint16, np.float32]),
    size=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    seed=st.integers(0, 99),
)
def test_what_is_written_is_read_back_exactly(tmp_path, suffix, channels, dtype, size, seed):
    if suffix == ".png" and dtype == np.float32:
        dtype = np.uint16
    array = pixels(*size, channels, dtype, seed)
    data = to_tensor(array)
    colours = 1 if channels < 3 else 3
    alpha = data[:, colours:] if channels > colours else None
    depth = {"uint8": 8, "uint16": 16, "float32": "float"}[array.dtype.name]
    like = images.Image(data=data[:, :colours], alpha=alpha, depth=depth)
    path = images.write(tmp_path / f"x{suffix}", data[:, :colours], like, overwrite=True)
    found = images.read(path)
    assert found.depth == depth
    assert torch.equal(found.data, data[:, :colours])
    assert (found.alpha is None) == (alpha is None)
    if alpha is not None:
        assert torch.equal(found.alpha, alpha)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_foreign_8_bit_files(tmp_path, suffix, channels):
    array = pixels(channels=channels)
    found = images.read(save(tmp_path / f"x{suffix}", array))
    both = found.data if found.alpha is None else torch.cat([found.data, found.alpha], 1)
    assert torch.equal(both, to_tensor(array))
    assert found.depth == 8


@pytest.mark.parametrize(
    "options",
    [{"planarconfig": "separate"}, {"compression": "zlib", "predictor": 2}, {"byteorder": ">"}],
)
def test_tiff_layouts_hold_the_same_picture(tmp_path, options):
    array = pixels(dtype=np.uint16)
    planes = np.moveaxis(array, -1, 0) if "planarconfig" in options else array
    tifffile.imwrite(tmp_path / "x.tif", planes, photometric="rgb", **options)
    assert torch.equal(images.read(tmp_path / "x.tif").data, to_tensor(array))


def test_16_bit_png_matches_an_independent_reader(tmp_path):
    array = pixels(height=20, width=31, dtype=np.uint16)
    images.write(tmp_path / "x.png", to_tensor(array), depth=16)
    from torchvision.io import decode_png, read_file

    decoded = decode_png(read_file(str(tmp_path / "x.png"))).numpy().transpose(1, 2, 0)
    assert np.array_equal(decoded, array)
    with PIL.Image.open(tmp_path / "x.png") as picture:  # Pillow, for the high bytes
        picture.load()
        assert np.abs(np.asarray(picture).astype(int) - (array >> 8)).max() <= 1


def test_palette_bilevel_and_min_is_white(tmp_path):
    array = pixels()
    colour = PIL.Image.fromarray(array).quantize(16)
    colour.save(tmp_path / "p.png")
    expected = to_tensor(np.asarray(colour.convert("RGB")))
    assert torch.equal(images.read(tmp_path / "p.png").data, expected)
    colour.save(tmp_path / "p.tif")
    assert torch.equal(images.read(tmp_path / "p.tif").data, expected)
    bits = array[..., 0] > 127
    PIL.Image.fromarray(bits).save(tmp_path / "b.png")
    PIL.Image.fromarray(bits).save(tmp_path / "b.tif")
    for name in ("b.png", "b.tif"):
        assert torch.equal(images.read(tmp_path / name).data[0, 0], torch.tensor(bits).float())
    tifffile.imwrite(tmp_path / "w.tif", array[..., 0], photometric="miniswhite")
    assert torch.allclose(images.read(tmp_path / "w.tif").data, 1 - to_tensor(array[..., :1]))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(tmp_path, suffix, orientation):
    ramp = np.add.outer(np.arange(16) * 4, np.arange(24) * 7).astype(np.uint8)
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    lossless = {"quality": 100} if suffix == ".jpg" else {}
    PIL.Image.fromarray(ramp).save(tmp_path / f"x{suffix}", exif=exif, **lossless)
    # what each orientation asks for, in Pillow's own words
    turn = {
        2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
        3: PIL.Image.Transpose.ROTATE_180,
        4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
        5: PIL.Image.Transpose.TRANSPOSE,
        6: PIL.Image.Transpose.ROTATE_270,
        7: PIL.Image.Transpose.TRANSVERSE,
        8: PIL.Image.Transpose.ROTATE_90,
    }
    upright = PIL.Image.fromarray(ramp)
    upright = upright.transpose(turn[orientation]) if orientation in turn else upright
    found = images.read(tmp_path / f"x{suffix}")
    error = np.abs(found.data[0, 0].numpy() * 255 - np.asarray(upright))
    assert error.max() <= (2 if suffix == ".jpg" else 1e-4)
    out = images.write(tmp_path / f"out{suffix}", found.data, found)
    assert images.read(out).shape == found.shape


def test_camera_data_and_profile_are_kept(tmp_path):
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = PIL.Image.Exif()
    exif[0x0110] = "a camera"
    save(tmp_path / "x.jpg", pixels(), exif=exif, icc_profile=profile)
    photo = images.read(tmp_path / "x.jpg")
    for name, depth in (("a.jpg", 8), ("b.png", 8), ("c.png", 16)):
        images.write(tmp_path / name, photo.data, photo, depth=depth)
        again = images.read(tmp_path / name)
        assert again.icc == profile
        with PIL.Image.open(tmp_path / name) as picture:
            assert picture.getexif()[0x0110] == "a camera"
    grey = images.write(tmp_path / "grey.png", photo.data[:, :1], photo)
    assert images.read(grey).icc == b""  # an RGB profile would be wrong here


def test_alpha_follows_the_size_of_the_picture(tmp_path):
    data = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(0))
    like = images.Image(data=data, alpha=torch.full((1, 1, 3, 4), 0.6), depth=16)
    found = images.read(images.write(tmp_path / "x.png", data, like))
    assert found.alpha is not None
    assert found.alpha.shape == (1, 1, 6, 8)
    assert torch.allclose(found.alpha, torch.tensor(0.6), atol=1e-4)
    with pytest.raises(ValueError, match="transparency"):
        images.write(tmp_path / "x.jpg", data, like)


def test_rounding_and_clipping_happen_only_where_integers_are_stored(tmp_path):
    data = torch.tensor([[[[-0.2, 0.5], [0.4999, 1.3]]]])
    eight = images.read(images.write(tmp_path / "x.png", data)).data
    assert torch.equal(eight * 255, torch.tensor([[[[0.0, 128.0], [127.0, 255.0]]]]))
    path = images.write(tmp_path / "x.tif", data, depth="float")
    assert torch.equal(images.read(path, any_range=True).data, data)
    with pytest.raises(ValueError, match=r"from -0.2 to 1.3"):
        images.read(path)


def bomb():
    def chunk(tag, body):
        return struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 10**6))


def encoded(picture, kind, **options):
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def tiff(array, **options):
    stream = io.BytesIO()
    tifffile.imwrite(stream, array, **options)
    return stream.getvalue()


GREY = PIL.Image.fromarray(pixels(16, 16, 1)[..., 0])
NAN = np.full((4, 4), np.nan, np.float32)
REFUSED = {
    "not.png": (b"GIF89a" + b"\0" * 20, "not a PNG, JPEG or TIFF"),
    "empty.png": (b"", "not a PNG, JPEG or TIFF"),
    "cut.png": (encoded(GREY, "PNG")[:60], "cannot be read"),
    "cut.jpg": (encoded(GREY, "JPEG")[:200], "cannot be read"),
    "cut.tif": (tiff(pixels(16, 16, 1)[..., 0])[:100], "cannot be read"),
    "header.tif": (b"II*\0garbage", "cannot be read"),
    "one.png": (encoded(GREY.crop((0, 0, 1, 1)), "PNG"), "at least 2"),
    "line.tif": (tiff(np.zeros((1, 9), np.uint8)), "at least 2"),
    "bomb.png": (bomb(), "too many pixels|more than"),
    "cmyk.jpg": (encoded(GREY.convert("CMYK"), "JPEG"), "CMYK"),
    "moving.png": (
        encoded(GREY, "PNG", save_all=True, append_images=[GREY.rotate(90)]),
        "animated",
    ),
    "pages.tif": (tiff(np.zeros((3, 4, 4), np.uint8), photometric="minisblack"), "3 pages"),
    "nan.tif": (tiff(NAN), "NaN"),
    "range.tif": (tiff(np.full((4, 4), 300, np.float32)), "expected"),
    "int.tif": (tiff(np.zeros((4, 4), np.int32)), "int32"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_are_one_sentence(tmp_path, name):
    content, words = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=words) as caught:
        images.read(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith(".")


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    start=st.sampled_from(["PNG", "JPEG", "TIFF"]),
    at=st.integers(0, 400),
    junk=st.binary(min_size=1, max_size=12),
)
def test_damaged_files_give_a_picture_or_a_sentence(tmp_path, start, at, junk):
    content = bytearray(encoded(GREY, start))
    at %= len(content)
    content[at : at + len(junk)] = junk
    (tmp_path / "x").write_bytes(content)
    with contextlib.suppress(ValueError):  # and no other exception
        found = images.read(tmp_path / "x")
        assert 0 <= found.data.min() <= found.data.max() <= 1


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        images.read(tmp_path / "no.png")
    with pytest.raises(IsADirectoryError):
        images.read(tmp_path)
    x = torch.zeros(1, 1, 4, 4)
    with pytest.raises(FileNotFoundError, match="folder"):
        images.write(tmp_path / "no" / "x.png", x)
    with pytest.raises(ValueError, match="no suffix"):
        images.write(tmp_path / "x", x)
    with pytest.raises(ValueError, match="NaN"):
        images.write(tmp_path / "x.png", x / 0)
    assert list(tmp_path.iterdir()) == []


def test_existing_files_and_the_input_are_safe(tmp_path):
    x = torch.zeros(1, 1, 4, 4)
    path = images.write(tmp_path / "x.png", x)
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="--overwrite"):
        images.write(path, x + 1)
    photo = images.read(path)
    with pytest.raises(FileExistsError, match="input itself"):
        images.write(path, x + 1, photo, overwrite=True)
    assert path.read_bytes() == before
    images.write(path, x + 1, overwrite=True)
    assert images.read(path).data.min() == 1


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file_alone(tmp_path, error):
    (tmp_path / "x.png").write_bytes(b"old")

    def interrupted():
        with atomic(tmp_path / "x.png", overwrite=True) as partial:
            partial.write_bytes(b"half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"old"]
