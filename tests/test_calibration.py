"""Conformal intervals keep their promise, whatever the sampler's spread was worth."""

import pytest
import torch

from restore.calibration import Calibration, coverage
from restore.result import Cost, Result


def fake(samples, solver="mine"):
    return Result(
        samples=samples,
        misfit=torch.ones(samples.shape[1]),
        status="ok",
        remedy="",
        cost=Cost(1, 0, 0.0, 0),
        provenance={"solver": {"solver": solver}, "prior": {"name": "p"}, "operator": "denoise"},
    )


def draw(seed, spread, images=1, samples=40, side=8):
    """Truths of unit variance around an unknown level, samples of another spread around it."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    centre = normal(images, 1, side, side)
    # images differ in how hard they are, so that their pixels are not independent
    hardness = 0.5 + normal(images, 1, 1, 1).abs()
    truth = centre + hardness * normal(images, 1, side, side)
    return fake(centre + spread * hardness * normal(samples, images, 1, side, side)), truth


def calibrated(spread, level=0.9, images=40, seed=0):
    pairs = [draw(seed * 1000 + i, spread) for i in range(images)]
    return Calibration.fit([r for r, _ in pairs], [t for _, t in pairs], level=level)


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_coverage_is_as_promised_on_new_images(spread):
    fit = calibrated(spread)
    result, truth = draw(77, spread, images=400)
    low, high = fit.interval(result)
    inside = ((truth >= low) & (truth <= high)).double().flatten(1).mean(1)
    # n = 40 calibration images move the coverage about its mean by the share's std / sqrt(40)
    slack = 4 * float(inside.std()) * (1 / 40 + 1 / 400) ** 0.5
    assert abs(float(inside.mean()) - 0.9) < slack + 1 / 41
    assert fit.after >= 0.9
    assert (fit.factor > 1.3) == (spread < 1)
    assert (fit.factor < 0.7) == (spread > 1)


def test_promise_holds_on_average_over_calibration_sets():
    covered = []
    for seed in range(60):
        fit = calibrated(0.5, level=0.8, images=5, seed=seed + 1)
        result, truth = draw(90_000 + seed, 0.5, images=20)
        low, high = fit.interval(result)
        covered.append(float(((truth >= low) & (truth <= high)).double().mean()))
    mean = torch.tensor(covered)
    # theorem: at least the level; five images overshoot by at most 1 / (n + 1)
    standard_error = float(mean.std()) / len(covered) ** 0.5
    assert 0.8 - 3 * standard_error <= float(mean.mean()) <= 0.8 + 1 / 6 + 3 * standard_error


def test_factor_is_the_smallest_that_does():
    pairs = [draw(i, 0.5) for i in range(12)]
    results, truths = [r for r, _ in pairs], [t for _, t in pairs]
    fit = Calibration.fit(results, truths, level=0.8)
    n = len(pairs)

    def risk(factor):
        outside = []
        for result, truth in pairs:
            one = Calibration(0.8, factor, n, 0.0, 0.0, fit.recipe)
            low, high = one.interval(result)
            outside.append(float(((truth < low) | (truth > high)).double().mean()))
        return (n * sum(outside) / n + 1) / (n + 1)

    assert risk(fit.factor * (1 + 1e-9)) <= 0.2 + 1e-9
    assert risk(fit.factor * (1 - 1e-9)) > 0.2


@pytest.mark.parametrize(("n", "level"), [(9, 0.8), (19, 0.9), (40, 0.9), (39, 0.5)])
def test_exchangeable_samples_cover_exactly_the_level(n, level):
    """No finite-sample bias: the truth is one more draw."""
    result, truth = draw(3, 1.0, images=400, samples=n)
    share = coverage(result, truth, level)
    assert abs(float(share.mean()) - level) < 4 * float(share.std()) / 400**0.5


def test_interval_needs_enough_samples():
    with pytest.raises(ValueError, match="90% interval needs at least 19 samples, found 18"):
        draw(0, 1.0, samples=18)[0].interval(0.9)
    low, high = draw(0, 1.0, samples=19)[0].interval(0.9)
    assert bool((low < high).all())


def test_samples_without_spread_are_stretched_too():
    pairs = [draw(i, 0.0) for i in range(12)]
    fit = Calibration.fit([r for r, _ in pairs], [t for _, t in pairs], level=0.8)
    low, high = fit.interval(pairs[0][0])
    assert bool((high > low).all())
    assert fit.after >= 0.8


def test_round_trip_and_use_through_the_result(tmp_path):
    fit = calibrated(0.5, images=12)
    path = fit.save(tmp_path / "calibration.json")
    again = Calibration.load(path)
    assert again == fit
    with pytest.raises(FileExistsError, match="exists"):
        fit.save(path)
    result, truth = draw(5, 0.5)
    for ours, theirs in zip(
        result.interval(0.9, calibration=again), fit.interval(result), strict=True
    ):
        assert torch.equal(ours, theirs)
    assert 0 < float(coverage(result, truth)) < 0.9


def test_refusals(tmp_path):
    pairs = [draw(i, 0.5) for i in range(8)]
    results, truths = [r for r, _ in pairs], [t for _, t in pairs]
    with pytest.raises(ValueError, match=r"8 calibration images cannot promise 90%, .* least 9"):
        Calibration.fit(results, truths, level=0.9)
    with pytest.raises(ValueError, match="same order"):
        Calibration.fit(results, [t[..., :4] for t in truths], level=0.8)
    with pytest.raises(ValueError, match="different solvers"):
        Calibration.fit([*results, fake(results[0].samples, "other")], [*truths, truths[0]])
    fit = Calibration.fit(results, truths, level=0.8)
    with pytest.raises(ValueError, match="another solver"):
        fit.interval(fake(results[0].samples, "other"))
    with pytest.raises(ValueError, match="80% intervals, not 90%"):
        results[0].interval(0.9, calibration=fit)
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ValueError, match="not a calibration"):
        Calibration.load(tmp_path / "x.json")


# -- from the command line ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four small clean pictures."""
    from restore import images

    path = tmp_path_factory.mktemp("clean")
    for i in range(4):
        generator = torch.Generator().manual_seed(i)
        x = torch.rand((1, 1, 4, 4), generator=generator)
        x = torch.nn.functional.interpolate(x, size=(20, 24), mode="bicubic").clamp(0, 1)
        images.write(path / f"{i}.png", x)
    return path


def test_calibrate_then_restore_with_bounds(folder, tmp_path, capsys):
    from restore import cli, images

    out = tmp_path / "cal.json"
    damage = ["--operator", "blur:sigma=0.8", "--noise", "0.05"]
    words = ["calibrate", str(folder), "-o", str(out), *damage, "--crop", "16"]
    assert cli.main(words) == 0
    fit = Calibration.load(out)
    assert (fit.images, fit.level, fit.recipe["operator"]) == (4, 0.8, "blur:sigma=0.8")
    assert fit.after >= 0.8
    assert "80% intervals of the samples covered" in capsys.readouterr().err

    measured, restored = tmp_path / "y.tif", tmp_path / "x.tif"
    low, high = tmp_path / "low.tif", tmp_path / "high.tif"
    assert cli.main(["degrade", str(folder / "0.png"), "-o", str(measured), *damage]) == 0
    bounds = ["--low", str(low), "--high", str(high), "--samples", "9"]
    again = ["image", str(measured), "-o", str(restored), *bounds, "--calibration", str(out)]
    assert cli.main(again) == 0
    middle, below, above = (images.read(p).data for p in (restored, low, high))
    assert bool((below <= above).all())
    assert float(((below <= middle) & (middle <= above)).double().mean()) > 0.9


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--level", "0.9"], "4 calibration images cannot promise 90%"),
        (["--samples", "5"], "needs at least 9 samples, found 5"),
        (["--crop", "64"], "too small for a part of 64"),
        (["--level", "1.5"], "level must lie between 0 and 1"),
    ],
)
def test_calibrate_refuses_in_one_sentence(folder, tmp_path, capsys, words, told):
    from restore import cli

    out = tmp_path / "cal.json"
    samples = [] if "--samples" in words else ["--samples", "19"]
    command = ["calibrate", str(folder), "-o", str(out), "--operator", "denoise", "--noise", "0.1"]
    assert cli.main([*command, *samples, *words]) == 2
    err = capsys.readouterr().err
    assert told in err
    assert len([line for line in err.splitlines() if line.startswith("restore:")]) == 1
    assert not out.exists()
