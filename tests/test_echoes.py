"""A head at many echo times: its relaxation times, and the demonstration of solvers of cubes."""

import math

import pytest
import torch

from medical import echo_demonstration
from medical.demo import echoes
from medical.echoes import relaxation, scan


def test_a_decay_tells_its_time_and_its_amplitude_does_not_matter():
    times = 12.0 * torch.arange(1, 9)
    T2 = torch.tensor([[20.0, 69.0, 99.0], [150.0, 250.0, 380.0]])
    signal = torch.exp(-times[:, None, None].double() / T2)[None]
    for amplitude in (1.0, 0.2):
        found = relaxation(amplitude * signal, times)
        assert float((found / T2 - 1).abs().max()) < 0.0021  # half a step of the grid


def test_noise_moves_a_relaxation_time_as_little_as_it_can():
    """The std of the estimate is that of Cramer and Rao, amplitude unknown."""
    times, T2, sigma = 10.0 * torch.arange(1, 17), 80.0, 0.01
    t = times.double()
    decay = torch.exp(-t / T2)
    slope = decay * t / T2**2
    across = slope - decay * (slope @ decay) / (decay @ decay)
    bound = sigma / float(across.norm())
    noise = torch.randn((1, 16, 100, 100), generator=torch.Generator().manual_seed(0))
    found = relaxation(decay.float()[:, None, None] + sigma * noise, times)
    # 1e4 draws: 0.7 % is a std of their std; a grid of 0.4 % adds less than 1 %
    assert abs(float(found.std()) / bound - 1) < 0.04
    assert abs(float(found.mean()) - T2) < 4 * bound / 100 + 0.05


def test_the_head_has_the_tissues_it_should():
    found = scan(pixel=3.5)
    assert found.signal.shape == (1, 16, 56, 48)
    assert (float(found.signal.min()), float(found.signal.max())) == (0.0, 1.0)
    assert bool((found.signal.diff(dim=1) <= 0).all())
    # most of the brain is white matter of 69 ms, which varies by 6 %
    assert 66 < float(found.T2[found.brain].median()) < 76
    assert float(found.T2[28, 24]) < 200  # between the ventricles
    assert torch.equal(scan(pixel=3.5).signal, found.signal)
    assert not torch.equal(scan(pixel=3.5, seed=1).signal, found.signal)


def test_demonstration_compares_methods_by_the_times_that_they_leave(tmp_path, monkeypatch):
    from PIL import Image

    monkeypatch.setattr(echo_demonstration, "PIXEL", 5.0)
    report = echo_demonstration.run(echoes=8, steps=3, progress=False)
    rows = {row["method"].partition(",")[0]: row for row in report.as_dict()["methods"]}
    assert next(iter(rows)) == "measured"
    assert {"fasthyde", "eigen", "vs2m", "dds2m"} < set(rows)
    # noise that a denoiser leaves is less than half of what its pixel had
    assert rows["fasthyde"]["T2 median error ms"] < 0.5 * rows["measured"]["T2 median error ms"]
    assert abs(rows["measured"]["psnr"] + 20 * math.log10(echo_demonstration.NOISE)) < 0.2
    picture = echo_demonstration.save(report, tmp_path / "new" / "echoes.png")
    assert Image.open(picture).width > 1500
    assert report.table().row_count == len(report.methods) == 6


def test_a_name_that_is_no_picture_is_refused_first(tmp_path):
    with pytest.raises(ValueError, match="end it with"):
        echoes(out=tmp_path / "echoes.jpg")
