import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from priors.predictions import KINDS, from_x0, to_x0


def draw(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, *shape, generator=generator, dtype=torch.float64)


@given(st.sampled_from(KINDS), st.floats(0.1, 1.0), st.floats(0.1, 3.0), st.integers(0, 2**32 - 1))
def test_round_trip(kind, alpha, sigma, seed):
    x0, x_t = draw(seed, 3, 3, 4, 4)
    value = from_x0(kind, x0, x_t, alpha, sigma)
    torch.testing.assert_close(to_x0(kind, value, x_t, alpha, sigma), x0, rtol=0, atol=1e-12)


@given(st.floats(0.1, 1.0), st.floats(0.1, 3.0), st.integers(0, 2**32 - 1))
def test_predictions_are_what_their_names_say(alpha, sigma, seed):
    x0, eps = draw(seed, 1, 1, 4, 4)
    x_t = alpha * x0 + sigma * eps
    meaning = {
        "eps": eps,
        "score": -eps / sigma,
        "v": alpha * eps - sigma * x0,
        "flow": eps - x0,
        "x0": x0,
    }
    assert set(meaning) == set(KINDS)
    for kind, value in meaning.items():
        close = {"rtol": 0, "atol": 1e-10}
        torch.testing.assert_close(from_x0(kind, x0, x_t, alpha, sigma), value, **close)
        torch.testing.assert_close(to_x0(kind, value, x_t, alpha, sigma), x0, **close)


@pytest.mark.parametrize("kind", KINDS)
def test_levels_per_image(kind):
    value, x_t = draw(0, 3, 2, 4, 5)
    alpha = torch.tensor([0.3, 0.6, 0.9], dtype=torch.float64)
    sigma = torch.tensor([0.8, 0.7, 0.1], dtype=torch.float64)
    together = to_x0(kind, value, x_t, alpha, sigma)
    for i in range(3):
        one = to_x0(kind, value[i : i + 1], x_t[i : i + 1], float(alpha[i]), float(sigma[i]))
        torch.testing.assert_close(together[i : i + 1], one, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize(("theirs", "kind"), [("epsilon", "eps"), ("v_prediction", "v")])
def test_equal_to_diffusers(theirs, kind):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDIMScheduler(clip_sample=False, prediction_type=theirs)
    scheduler.set_timesteps(1000)
    value, x_t = draw(1, 2, 3, 4, 4)
    for step in (0, 250, 600, 999):
        abar = float(scheduler.alphas_cumprod[step])
        expected = scheduler.step(value, step, x_t).pred_original_sample
        found = to_x0(kind, value, x_t, abar**0.5, (1 - abar) ** 0.5)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("word", "nearest"), [("epsilon", "eps"), ("x_0", "x0"), ("scores", "score"), ("flows", "flow")]
)
@pytest.mark.parametrize("convert", [to_x0, from_x0])
def test_an_unknown_kind_is_refused_with_the_nearest_word(convert, word, nearest):
    x = torch.zeros(1, 1, 2, 2)
    with pytest.raises(ValueError, match=f"'{word}'.*did you mean '{nearest}'"):
        convert(word, x, x, 1.0, 1.0)
