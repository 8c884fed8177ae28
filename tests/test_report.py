"""The page about a restored scan: complete in itself, true, and silent about the patient."""

import base64
import html
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
import volumes
from PIL import Image
from volumes import scan

from medical import Volume, pictures, report
from medical.pictures import Point, Window
from medical.reconstruct import Settings, reconstruct
from restore.solvers.posterior_mean import PosteriorMean


class Page(HTMLParser):
    """Tags with their attributes, and text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def simulated():
    return reconstruct(
        scan(),
        "ct-sparse",
        prior=volumes.prior(),
        options={"steps": 4},
        samples=2,
        progress=False,
    )


@pytest.fixture(scope="module")
def page(simulated):
    return Page(report.page(simulated))


def test_page_is_complete_in_itself(page):
    assert not page.all("script")
    assert not page.all("link")
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "data"):
            if value := attributes.get(name):
                assert value.startswith("data:image/png;base64,"), (tag, value[:40])
    style = " ".join(text for text in page.text if "{" in text)
    assert "url(" not in style
    assert "@import" not in style


def test_a_std_without_samples_says_so(page):
    found = reconstruct(
        scan(),
        "denoise",
        Settings(noise=90.0),
        prior=volumes.prior(),
        solver=PosteriorMean(),
        samples=2,
        progress=False,
    )
    one, several = (" ".join(p.text) for p in (Page(report.page(found)), page))
    assert "std of the posterior" in one
    assert "samples" not in one
    assert "std of the samples" in several
    assert "How far 2 samples lie apart" in several


def test_every_picture_has_words_and_its_scale(simulated, page):
    images = page.all("img")
    # scan, back-projection, mean, error, std in three planes
    assert len(images) == 15
    assert len({image["alt"] for image in images}) == 15
    for image in images:
        picture = Image.open(io.BytesIO(base64.b64decode(image["src"].split(",")[1])))
        assert picture.size in ((24, 20), (24, 12), (20, 12))
        assert "HU" in image["alt"]
    text = " ".join(page.text)
    assert {"-160", "240"} <= set(page.text)  # the window of soft tissue
    assert "Research use, not for diagnosis" in text
    assert "simulated from the scan" in text
    psnr = simulated.quality["restored"].psnr
    assert all(f"{value:.2f}" in text for value in psnr.values())


def test_a_scan_without_truth_has_no_scores():
    found = reconstruct(
        scan("OT"),
        "denoise",
        Settings(noise=50.0),
        prior=volumes.prior(),
        options={"steps": 3},
        solver="dds",
        progress=False,
    )
    page = Page(report.page(found))
    assert len(page.all("img")) == 9  # the scan, restored, their difference
    assert not page.all("table")
    assert "a.u." in page.text


def test_words_are_escaped(simulated):
    from dataclasses import replace

    note = "<script>alert(1)</script>"
    text = report.page(replace(simulated, notes=(note,)))
    assert note not in text
    assert html.escape(note) in text


def test_planes_are_where_they_say():
    affine = np.array([[0, 0, -2.0, 40], [0, -3.0, 0, 60], [4.0, 0, 0, -20], [0, 0, 0, 1]])
    data = torch.zeros(1, 6, 8, 10)  # axes up, back, left
    data[0, 2, 5, 7] = 100.0
    volume = Volume(data=data, affine=affine)
    for codes in ("SPL", "RAS", "LIA"):
        views = pictures.views(volume.reoriented(codes), Point(2, 5, 7))
        for view, (row, column), size in zip(
            views, ((5, 7), (3, 7), (3, 5)), ((8, 10), (6, 10), (6, 8)), strict=True
        ):
            assert view.pixels.shape == size
            assert view.pixels[row, column] == 100
            assert np.count_nonzero(view.pixels) == 1
            assert view.cross == pytest.approx(((column + 0.5) / size[1], (row + 0.5) / size[0]))
        # the world's place of the voxel: x = 40 - 14, y = 60 - 15, z = -20 + 8
        assert [view.where for view in views] == ["I 12.0 mm", "A 45.0 mm", "R 26.0 mm"]
        assert [view.aspect for view in views] == pytest.approx([20 / 24, 20 / 24, 24 / 24])


def test_a_window_is_black_and_white_at_its_ends():
    pixels = np.array([[-1000.0, -160.0], [40.0, 9000.0]], dtype=np.float32)
    picture = Image.open(io.BytesIO(pictures.png(pixels, Window(-160, 240, "gray", "HU"))))
    assert np.array_equal(np.asarray(picture), [[0, 0], [128, 255]])
    zero = np.zeros((1, 1), np.float32)
    (red, green, blue), *_ = np.asarray(
        Image.open(io.BytesIO(pictures.png(zero, Window(-5, 5, "RdBu_r", "HU"))))
    )[0]
    assert min(red, green, blue) > 240  # no difference is white


def test_the_middle_is_that_of_the_patient():
    data = torch.full((1, 20, 20, 20), -1000.0)
    data[0, 4:7, 10:13, 15:18] = 40
    volume = Volume(data=data, affine=np.diag([1.0, 1, 1, 1]), units="HU", modality="CT")
    point = pictures.middle(volume, pictures.grey(volume))
    stack = volume.stack("axial").data[0]
    assert float(stack[point]) == 40


def test_page_is_written_whole(simulated, tmp_path):
    path = report.write(simulated, tmp_path / "page.html")
    assert re.match(r"<!DOCTYPE html>", path.read_text(encoding="utf-8"))
    with pytest.raises(FileExistsError):
        report.write(simulated, path)
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]
