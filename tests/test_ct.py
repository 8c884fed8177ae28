"""CT: line integrals against closed forms, symmetries against the plain matrix, FBP, noise."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import operators
from operators.tomography import cache
from operators.tomography import projector as projectors
from operators.tomography.fbp import coverage
from operators.tomography.geometry import FanBeam, ParallelBeam
from operators.tomography.projector import projector
from operators.tomography.scanners import fan_beam, parallel_beam, view_angles
from operators.tomography.symmetry import orbits
from operators.tomography.system_matrix import Streamed, build, needed

BUILD = {"parallel": parallel_beam, "fan": fan_beam}
PERIOD = {"parallel": 180.0, "fan": 360.0}


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def scanner(kind, size, angles, start=0.0, span=None, **options):
    return BUILD[kind](size, view_angles(angles, start, span, PERIOD[kind]), **options)


def lines(geometry):
    """Lines of all rays, each `(bins, views)`."""
    shape = (len(geometry.angles), geometry.detectors)
    return [part.reshape(shape).T for part in geometry.lines(torch.arange(geometry.rays))]


def grid(size, pixel, finer=1):
    """Places `x, y` of pixels, or of parts of pixels, around the centre."""
    y, x = ((torch.arange(n * finer) + 0.5) / finer - n / 2 for n in size)
    return x.double() * pixel, -y.double()[:, None] * pixel


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


def disc(size, radius, centre=(0.0, 0.0), finer=8):
    x, y = grid(size, 1.0, finer)
    inside = torch.hypot(x - centre[0], y - centre[1]) <= radius
    return torch.nn.functional.avg_pool2d(inside.double()[None, None], finer)


# line integrals


@pytest.mark.parametrize("kind", ["parallel", "fan"])
def test_line_integrals_of_a_smooth_image_converge_with_the_square_of_the_pixel(kind):
    errors, pixels = [], [1.0, 0.5, 0.25]
    for pixel in pixels:
        size = (round(24 / pixel), round(20 / pixel))
        geometry = scanner(kind, size, 7, pixel=pixel, detectors=15, spacing=0.8)
        x, y = grid(size, pixel)
        image = torch.exp(-((x - 1) ** 2 + (y + 0.5) ** 2) / 8)
        cos, sin, t = lines(geometry)
        exact = math.sqrt(8 * math.pi) * torch.exp(-((t - cos + 0.5 * sin) ** 2) / 8)
        found = projector(geometry, cache=False).double()(image[None, None])[0, 0]
        errors.append(relative(found, exact))
    slope = np.polyfit(np.log(pixels), np.log(errors), 1)[0]
    assert slope == pytest.approx(2, abs=0.15)
    assert errors[-1] < 2e-3


def test_line_integrals_of_an_ellipse_are_its_chords():
    centre, (a, b), errors, pixels = (2.0, -1.0), (9.0, 6.0), [], [1.0, 0.5, 0.25]
    for pixel in pixels:
        size = (round(26 / pixel), round(30 / pixel))
        geometry = scanner("parallel", size, 30, pixel=pixel, detectors=81, spacing=0.35)
        x, y = grid(size, pixel, finer=8)
        inside = ((x - centre[0]) / a) ** 2 + ((y - centre[1]) / b) ** 2 <= 1
        image = torch.nn.functional.avg_pool2d(inside.double()[None, None], 8)
        cos, sin, t = lines(geometry)
        width = (a * cos).square() + (b * sin).square()
        inner = (width - (t - centre[0] * cos - centre[1] * sin).square()).clamp(min=0)
        exact = 2 * a * b * inner.sqrt() / width
        found = projector(geometry, cache=False).double()(image)[0, 0]
        errors.append(float((found - exact).abs().mean() / exact.mean()))
    # first order where a slanted ray enters and leaves, better elsewhere
    slope = np.polyfit(np.log(pixels), np.log(errors), 1)[0]
    assert 1 < slope < 1.5
    assert errors[-1] < 4e-3


def test_a_ray_of_the_fan_is_the_parallel_ray_along_the_same_line():
    geometry, x = scanner("fan", (18, 23), 5, start=7), normal(1, 1, 18, 23)
    fan = projector(geometry, cache=False).double()(x)[0, 0]
    cos, sin, t = lines(geometry)
    for bin, view in [(0, 0), (3, 1), (11, 2), (20, 3), (28, 4)]:
        angle = math.degrees(math.atan2(sin[bin, view], cos[bin, view]))
        parallel = parallel_beam((18, 23), [angle], detectors=3, spacing=float(t[bin, view].abs()))
        one = projector(parallel, cache=False).double()(x)[0, 0, 1 + int(t[bin, view].sign()), 0]
        assert float(one) == pytest.approx(float(fan[bin, view]), abs=1e-5)


def test_views_along_the_axes_sum_columns_and_rows():
    physics = operators.ct((1, 16, 16), angles=[0, 90], detectors=16, normalise=False).double()
    x = normal(1, 1, 16, 16)
    y = physics.A(x)[0, 0]
    torch.testing.assert_close(y[:, 0], x[0, 0].sum(0), atol=1e-12, rtol=0)
    torch.testing.assert_close(y[:, 1], x[0, 0].flip(0).sum(1), atol=1e-12, rtol=0)


def test_lengths_scale_with_the_pixel():
    x = normal(1, 1, 12, 15)
    for kind in ("parallel", "fan"):
        one = operators.ct((1, 12, 15), geometry=kind, angles=8, normalise=False).double().A(x)
        big = operators.ct((1, 12, 15), geometry=kind, angles=8, normalise=False, pixel=2.5)
        torch.testing.assert_close(big.double().A(x), 2.5 * one, rtol=1e-6, atol=1e-6)


def test_ct_has_unit_norm_keeps_mass_and_covers_the_diagonal():
    physics = operators.ct((1, 24, 24), angles=12)
    report = operators.check(physics, (1, 24, 24))
    norms = [row.value for row in report.rows if row.name == "norm"]
    assert norms == pytest.approx([1, 1], abs=2e-3)
    t = torch.linspace(-1, 1, 24)
    blob = torch.exp(-8 * (t[:, None] ** 2 + (t - 0.2) ** 2))
    y = physics.A(blob[None, None])
    assert y.shape == (1, 1, math.ceil(math.sqrt(2) * 24), 12)
    mass = y.sum(-2)
    torch.testing.assert_close(mass, mass.mean().expand_as(mass), rtol=2e-3, atol=0)


@pytest.mark.parametrize("kind", ["parallel", "fan"])
def test_astra_is_the_oracle(kind):
    pytest.importorskip("astra", reason="the ASTRA toolbox is not installed")
    size = (60, 81)
    geometry = scanner(kind, size, 12, start=5, pixel=0.3, spacing=0.9)
    across, up = grid(size, 0.3)
    x = torch.exp(-((across - 2) ** 2 + (up + 1) ** 2) / 20)[None, None]
    ours = projector(geometry, cache=False).double()(x)
    theirs = projector(geometry, cache=False, backend="astra").double()(x)
    # for fans ASTRA weighs pixels by the length of the ray in them, without interpolation
    assert relative(ours, theirs) < (1e-5 if kind == "parallel" else 5e-3)


def test_missing_astra_is_refused_by_name(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "astra", None)
    with pytest.raises(ValueError, match="needs the package astra-toolbox"):
        operators.ct((1, 8, 8), backend="astra", cache=False)


# the matrix and its symmetries


@pytest.mark.parametrize(
    ("kind", "size", "angles", "start", "span", "order"),
    [
        ("parallel", (16, 16), 12, 0, None, 8),
        ("parallel", (15, 15), 9, 0, None, 4),
        ("parallel", (15, 20), 12, 0, None, 4),
        ("parallel", (16, 16), 12, 7.5, None, 8),
        ("parallel", (16, 16), 12, 3, None, 4),
        ("parallel", (16, 16), 8, 0, 120, 2),
        ("parallel", (16, 16), 9, 50, 90, 4),
        ("fan", (16, 16), 12, 0, None, 8),
        ("fan", (13, 18), 10, 0, None, 4),
        ("fan", (16, 16), 7, 0, None, 2),
        ("fan", (16, 16), 8, 10, 200, 1),
    ],
)
def test_symmetry_stores_less_of_the_same_matrix(kind, size, angles, start, span, order):
    geometry = scanner(kind, size, angles, start, span, spacing=0.8)
    plain = projector(geometry, cache=False, symmetric=False).double()
    ours = projector(geometry, cache=False).double()
    assert ours.order == order
    assert ours.rows <= geometry.rays / order + 2 * geometry.detectors
    x, v = normal(2, 2, *size), normal(2, 2, *plain.detector, seed=1)
    # weights are rounded to float32 once
    torch.testing.assert_close(ours(x), plain(x), rtol=0, atol=2e-6)
    torch.testing.assert_close(ours.adjoint(v), plain.adjoint(v), rtol=0, atol=2e-6)


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(["parallel", "fan"]),
    size=st.tuples(st.integers(2, 14), st.integers(2, 14)),
    angles=st.integers(1, 9),
    start=st.sampled_from([0.0, 45.0, 11.25, -30.0]),
    part=st.sampled_from([1.0, 0.5, 0.3]),
)
def test_every_scanner_has_its_adjoint_and_its_streamed_twin(kind, size, angles, start, part):
    geometry = scanner(kind, size, angles, start, part * PERIOD[kind], spacing=0.9)
    stored = projector(geometry, cache=False).double()
    streamed = projector(geometry, cache=False, memory_budget=0).double()
    assert isinstance(streamed.matrix, Streamed)
    x, v = normal(2, 1, *size), normal(2, 1, *stored.detector, seed=1)
    y, back = stored(x), stored.adjoint(v)
    assert abs(float((y * v).sum() - (x * back).sum())) <= 1e-12 * float(y.norm() * v.norm())
    torch.testing.assert_close(streamed(x), y, rtol=0, atol=1e-12)
    torch.testing.assert_close(streamed.adjoint(v), back, rtol=0, atol=1e-12)


@pytest.mark.parametrize("budget", [2**30, 0])
def test_projections_can_be_differentiated_twice_and_forward(budget):
    geometry = scanner("fan", (4, 5), 3)
    projects = projector(geometry, cache=False, memory_budget=budget).double()
    x = normal(1, 2, 4, 5).requires_grad_()
    v = normal(1, 2, *projects.detector).requires_grad_()
    assert torch.autograd.gradcheck(projects, x, check_forward_ad=True)
    assert torch.autograd.gradcheck(projects.adjoint, v, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda x: projects(x).square().sum(), x)


def test_many_images_go_through_in_portions():
    projects = projector(scanner("parallel", (9, 9), 4), cache=False).double()
    x = normal(7, 3, 9, 9)
    alone = torch.stack([projects(one[None])[0] for one in x])
    torch.testing.assert_close(projects(x), alone, rtol=0, atol=1e-12)
    torch.testing.assert_close(projects.adjoint(alone)[5:6], projects.adjoint(alone[5:6]))


@pytest.mark.parametrize("kind", ["parallel", "fan"])
def test_the_memory_needed_is_known_before(kind):
    geometry = scanner(kind, (40, 55), 20)
    rays = orbits(geometry).rays
    stored = sum(t.nbytes for t in build(geometry, rays).values())
    assert 0.95 * stored <= needed(geometry, rays) <= 1.1 * stored


# kept on disk


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return cache.directory()


class Counted:
    def __init__(self, n=4):
        self.calls, self.n = 0, n

    def __call__(self):
        self.calls += 1
        return {"a": torch.arange(self.n), "b": torch.ones(self.n)}


def test_what_took_long_is_built_once(folder):
    build = Counted()
    for _ in range(3):
        found = cache.remember("x", build)
        assert torch.equal(found["a"], torch.arange(4))
    assert build.calls == 1
    cache.remember("y", build)
    cache.remember("x", build, enabled=False)
    assert build.calls == 3
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign", "empty"])
def test_damaged_files_are_built_again(folder, damage):
    build = Counted(1000)
    cache.remember("x", build)
    (file,) = folder.iterdir()
    whole = bytearray(file.read_bytes())
    if damage == "foreign":
        cache.remember("other", Counted(5))
        (other,) = set(folder.iterdir()) - {file}
        other.replace(file)
    else:
        whole[-7] ^= 1
        file.write_bytes({"cut": whole[:-20], "flipped": whole, "empty": b""}[damage])
    assert len(cache.remember("x", build)["a"]) == 1000
    assert build.calls == 2
    cache.remember("x", build)
    assert build.calls == 2


def test_files_used_longest_ago_make_room(folder):
    import os

    build = Counted(1000)  # 12 kB
    for age, name in enumerate("abc"):
        cache.remember(name, build, limit=40_000)
        newest = max(folder.iterdir(), key=lambda f: f.stat().st_mtime)
        os.utime(newest, (1000 + age, 1000 + age))
    cache.remember("a", build, limit=40_000)  # used just now
    assert build.calls == 3
    cache.remember("d", build, limit=40_000)  # b goes
    assert len(list(folder.iterdir())) == 3
    for name, calls in [("a", 4), ("c", 4), ("d", 4), ("b", 5)]:
        cache.remember(name, build, limit=10**9)
        assert build.calls == calls
    cache.remember("huge", build, limit=100)
    assert len(list(folder.iterdir())) == 4


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cache.remember("x", Counted())["b"].sum() == 4


def test_a_matrix_from_disk_is_the_matrix(folder, monkeypatch):
    monkeypatch.setattr(projectors, "WORTH", 0)
    x = normal(1, 1, 9, 12)
    built, read = (operators.ct((1, 9, 12), angles=5).double() for _ in range(2))
    assert len(list(folder.iterdir())) == 2  # the matrix and its norm
    assert torch.equal(built.A(x), read.A(x))
    other = operators.ct((1, 9, 12), angles=5, start=1).double()
    assert len(list(folder.iterdir())) == 4
    assert not torch.equal(other.A(x), read.A(x))


# filtered back-projection


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"angles": 179, "span": 179.0},
        {"angles": 90, "window": "hann"},
        {"angles": [float(a) for a in np.sort(np.r_[0:180:2, 1:60:2])]},
        {"pixel": 0.5, "spacing": 0.4, "normalise": False},
        {"geometry": "fan"},
        {"geometry": "fan", "angles": 240, "span": 240.0, "start": 30.0},
        {"geometry": "fan", "angles": 300, "span": 300.0, "window": "cosine"},
    ],
)
def test_fbp_of_a_disc_has_its_value(options):
    size, centre = (64, 70), (6.0, -4.0)
    physics = operators.ct((1, *size), **{"angles": 180, **options}).double()
    x = disc(size, 16, centre)
    found = physics.A_dagger(physics.A(x))
    inside, outside = disc(size, 13, centre) == 1, disc(size, 19, centre) == 0
    # the mean far from the edges, where a window rounds them off
    assert float(found[inside].mean()) == pytest.approx(1, abs=0.01)
    near = outside & (disc(size, 30) == 1)
    assert float(found[near].mean()) == pytest.approx(0, abs=0.01)
    assert float((found[inside] - 1).abs().max()) < 0.06


def test_fbp_is_that_of_scikit_image():
    from skimage.transform import iradon

    names = [("ram-lak", "ramp"), ("shepp-logan", "shepp-logan"), ("cosine", "cosine")]
    names += [("hamming", "hamming"), ("hann", "hann")]
    physics = operators.ct((1, 31, 31), angles=20, detectors=45, normalise=False).double()
    y = physics.A(normal(1, 1, 31, 31).abs())
    for ours, theirs in names:
        found = physics.A_dagger(y, window=ours)[0, 0].numpy()
        plane, theta = y[0, 0].numpy(), np.arange(20) * 9.0
        expected = iradon(plane, theta, filter_name=theirs, output_size=31, circle=False)
        # scikit-image samples its windows on the same grid, up to half a bin at the highest
        np.testing.assert_allclose(found, expected, atol=0.02 * np.abs(expected).max())


def test_views_count_for_the_angle_they_cover():
    def weights(angles, start=0.0, span=None):
        found = coverage(scanner("parallel", (8, 8), angles, start, span))
        return torch.rad2deg(found.weight), found.span

    even, span = weights(12)
    torch.testing.assert_close(even, torch.full((12,), 15.0).double())
    assert span == 180
    wedge, span = weights(12, 30.0, 60.0)
    torch.testing.assert_close(wedge, torch.full((12,), 5.0).double())
    assert span == pytest.approx(60)
    uneven, span = weights([0.0, 90.0, 10.0])
    torch.testing.assert_close(uneven, torch.tensor([50.0, 85.0, 45.0]).double())
    assert span == 180
    assert weights([3.0])[0].tolist() == pytest.approx([180])


def test_a_fan_that_turned_too_little_is_solved_by_least_squares():
    physics = operators.ct((1, 16, 16), geometry="fan", angles=20, span=120.0).double()
    y = physics.A(disc((16, 16), 6))
    with pytest.raises(ValueError, match="turns by 120 degrees"):
        physics.A_dagger(y, method="fbp")
    found = physics.A_dagger(y, tol=1e-5)
    assert torch.equal(found, physics.A_dagger(y, method="cg", tol=1e-5))
    assert relative(physics.A(found), y) < 1e-3


def test_a_real_slice_comes_back():
    import pydicom
    from pydicom.data import get_testdata_file
    from skimage.transform import iradon

    file = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    hounsfield = file.pixel_array * float(file.RescaleSlope) + float(file.RescaleIntercept)
    # attenuation per millimetre at 70 keV; iradon puts its axis on a pixel, so an odd size
    slice_ = 0.0193 * (1 + torch.from_numpy(hounsfield)[None, None, :127, :127] / 1000).clamp(min=0)
    pixel = float(file.PixelSpacing[0])
    physics = operators.ct(
        (1, 127, 127), angles=180, detectors=181, pixel=pixel, normalise=False, cache=False
    ).double()
    y = physics.A(slice_)
    assert 2 < float(y.max()) < 3  # optical depth of 8 cm of tissue
    expected = iradon(y[0, 0].numpy() / pixel, output_size=127, circle=False)
    fbp = physics.A_dagger(y)
    assert relative(fbp[0, 0], torch.from_numpy(expected)) < 1e-9
    assert relative(fbp, slice_) < 0.025
    with pytest.warns(operators.ConvergenceWarning):
        least = physics.A_dagger(y, method="cg", max_iter=30)
    assert relative(least, slice_) < 0.01
    assert relative(least[0, 0], torch.from_numpy(expected)) < 0.025


# photons


@pytest.mark.parametrize("normalise", [True, False])
def test_photons_are_counted_behind_the_slice(normalise):
    options = {"angles": 40, "photons": 1e4, "pixel": 0.5, "normalise": normalise}
    physics = operators.ct((1, 16, 16), **options)
    assert isinstance(physics.noise_model, operators.TransmissionNoise)
    x = torch.ones(4, 1, 16, 16)
    depth = physics.noise_model.depth * physics.A(x)
    # the diameter of a slice of ones has an optical depth of 5
    assert float(depth[0, 0, :, 0].max()) == pytest.approx(5, rel=1e-5)
    noisy = operators.measure(physics, x, seed=3) * physics.noise_model.depth
    # the logarithm of a Poisson count of mean m has the variance 1 / m
    whitened = (noisy - depth) * (1e4 * torch.exp(-depth)).sqrt()
    assert float(whitened.mean()) == pytest.approx(0, abs=5 / math.sqrt(whitened.numel()) + 0.05)
    assert float(whitened.square().mean()) == pytest.approx(1, abs=0.1)


def test_attenuation_is_per_length():
    physics = operators.ct((1, 8, 8), photons=10, attenuation=0.02, pixel=3.0, normalise=False)
    assert physics.noise_model.depth == pytest.approx(0.02)
    unit = operators.ct((1, 8, 8), photons=10, attenuation=0.02, pixel=3.0)
    assert unit.noise_model.depth == pytest.approx(0.02 / unit.scale)


# refusals


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"angles": 0}, "angles is 0"),
        ({"angles": []}, "angles have shape"),
        ({"angles": "many"}, "expected numbers"),
        ({"angles": [0, 10, 180]}, "0 and 180 degrees see the same rays"),
        ({"angles": [0, 10, 10]}, "10 and 10 degrees"),
        ({"geometry": "fan", "angles": [5, 365]}, "repeat after 360"),
        ({"angles": [0, 10], "span": 90}, "leave start and span out"),
        ({"span": 0}, "span is 0"),
        ({"span": 181}, "span is 181"),
        ({"detectors": 0}, "detectors is 0"),
        ({"detectors": 2, "spacing": 99}, "passes it at 49.5 but the slice reaches only 8"),
        ({"spacing": 1e-9}, "widen the spacing"),
        ({"pixel": -1}, "pixel is -1"),
        ({"source_distance": 50}, "parallel rays have no source_distance"),
        ({"geometry": "fan", "source_distance": 11}, "raise source_distance"),
        ({"geometry": "fan", "source_distance": 50, "detector_distance": 30}, "is 30 from"),
        ({"geometry": "cone"}, "geometry 'cone' is unknown"),
        ({"window": "han"}, "did you mean 'hann'"),
        ({"photons": 10, "noise": 0.1}, "give one"),
        ({"attenuation": 1}, "give photons"),
        ({"memory_budget": -1}, "memory_budget is -1"),
        ({"backend": "astra", "memory_budget": 10}, "more than memory_budget=10"),
    ],
)
def test_impossible_scanners_are_refused(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        operators.ct((1, 16, 16), **options)


def test_other_sizes_and_precisions_are_refused():
    physics = operators.ct((1, 16, 16), angles=3)
    with pytest.raises(ValueError, match=r"expected \(B, C, 16, 16\)"):
        physics.A(torch.zeros(1, 1, 17, 16))
    with pytest.raises(ValueError, match=r"expected \(B, C, 23, 3\)"):
        physics.A_dagger(torch.zeros(1, 1, 3, 23))
    with pytest.raises(ValueError, match=r"the operator is torch\.float32"):
        physics.A(torch.zeros(1, 1, 16, 16).double())


def test_geometries_say_what_they_are():
    parallel = operators.parse("ct:angles=6,start=10,span=120", (1, 12, 12)).geometry
    assert isinstance(parallel, ParallelBeam)
    assert parallel.angles == (10, 30, 50, 70, 90, 110)
    fan = operators.ct((1, 12, 12), geometry="fan", angles=torch.tensor([0.0, 180.0])).geometry
    assert isinstance(fan, FanBeam)
    assert fan.detector_distance == 2 * fan.source_distance
    # the outermost bins see the circle around the slice, to within half a bin
    edge = fan.lines(torch.tensor([0])).t.abs()
    assert fan.radius * (1 - 1.5 / fan.detectors) < float(edge) < fan.radius
