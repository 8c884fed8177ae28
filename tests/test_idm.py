"""IDM: its algorithm, what it can reach on a Gaussian, and that memory stays constant."""

from itertools import pairwise

import pytest
import torch
from skimage import data
from torch import nn

import operators
import priors
import restore
from operators import measure, parse
from priors import Gaussian
from priors.bases import Hartley
from restore.bench.saved import saved_bytes
from restore.metrics import psnr
from restore.trained import load, weights
from restore.trained.idm import IDM
from restore.trained.injected import InjectedDRUNet
from restore.trained.normal import Normal
from restore.trained.pair_prior import PairPrior, Trained
from restore.trained.reversible import Reversible
from restore.trained.unrolled import Outside, Unrolled

F64 = torch.float64
TINY = (8, 16, 32, 64)
SENSING = "cs:ratio=0.25,kind=scrambled,block=8"


def measured(spec=SENSING, shape=(1, 16, 24), count=2, seed=0, dtype=torch.float32):
    draws = torch.Generator().manual_seed(seed)
    x = torch.rand(count, *shape, generator=draws, dtype=dtype)
    operator = parse(spec, shape)
    return x, operator, Normal(operator, operator.A(x), shape)


def network(steps=3, seed=0, awake=True, **options):
    torch.manual_seed(seed)
    made = Unrolled.of(1, TINY, 1, steps, **options)
    if awake:  # injectors are without effect at first
        for p in made.parameters():
            p.data += 0.05 * torch.randn_like(p)
    return made


# -- the algorithm ---------------------------------------------------------------------------------


def without_second_stream(monkeypatch):
    zeros = property(lambda self: torch.zeros_like(self.raw_mix))
    monkeypatch.setattr(Reversible, "mix", zeros)


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_without_the_second_stream_it_is_ddnm_without_fresh_noise(steps, monkeypatch):
    """In the variables of a variance-exploding diffusion, `z = p / sqrt(abar)`."""
    without_second_stream(monkeypatch)
    x, operator, normal = measured(dtype=F64)
    mean = torch.full((1, 16, 24), 0.4, dtype=F64)
    prior = Gaussian(mean, Hartley(), torch.linspace(0.01, 0.2, 384, dtype=F64).reshape(mean.shape))
    made = Unrolled(Outside(prior), steps=steps, start="adjoint", consistent=False).to(F64)
    with torch.no_grad():
        mine = made(normal)
    levels = [((1 - 0.5**t) / 0.5**t) ** 0.5 for t in range(steps, -1, -1)]
    y = operator.A(x)
    z = operator.A_adjoint(y)
    for sigma, following in pairwise(levels):
        D = prior(z, sigma)
        x_0 = D + operator.A_adjoint(y - operator.A(D))
        z = x_0 + following * (z - D) / sigma
    assert torch.allclose(mine, z, rtol=0, atol=1e-12)


@pytest.mark.parametrize("consistent", [True, False])
def test_the_result_fits_the_measurement(consistent):
    x, operator, normal = measured()
    with torch.no_grad():
        error = operator.A(network(consistent=consistent)(normal)) - operator.A(x)
    if consistent:
        assert error.abs().max() < 1e-5
    else:  # the second stream is not projected
        assert error.abs().max() > 1e-3


def test_the_last_projection_never_raises_the_error():
    x, _, normal = measured()
    for seed in range(5):
        made = network(seed=seed)
        with torch.no_grad():
            better = (made(normal) - x).norm()
            made.consistent = False
            assert better <= (made(normal) - x).norm()


def test_the_centred_start_has_the_mean_of_the_image():
    made = network(awake=False)
    operator = parse(SENSING, (1, 64, 64))
    x = torch.full((1, 1, 64, 64), 0.8) + 0.05 * torch.randn(
        (1, 1, 64, 64), generator=torch.Generator().manual_seed(0)
    )
    normal = Normal(operator, operator.A(x), (1, 64, 64))
    with torch.no_grad():
        start = made.seen(normal)
    # 64 groups, in each of which 16 of 64 numbers tell of a mean that is off by 0.3
    assert abs(float(start.mean()) - 0.8) < 4 * 0.3 * 3**0.5 / 64**0.5
    assert normal.share == 0.25


def photograph(side=128):
    x = torch.from_numpy(data.camera()).float()[None, None, :512, :512] / 255
    return torch.nn.functional.avg_pool2d(x, 512 // side)


def test_message_passing_knows_its_own_error():
    """What is wrong with every z is white noise of the level that the network is told."""
    x = photograph()
    operator = parse("cs:ratio=0.25,kind=scrambled", (1, 128, 128))
    normal, told = Normal(operator, operator.A(x), (1, 128, 128)), []
    made = Unrolled.of(1, (32, 64, 128, 256), 1, 4, form="oamp")
    made.begin(priors.load("natural-gray"))
    made.noise.register_forward_hook(lambda module, args, out: told.append(args[:2]))
    *_, last = made.walk(normal)
    for z, s in told:
        wrong = z - x
        assert float(s) == pytest.approx(float(wrong.square().mean().sqrt()), rel=0.15)
        neighbours = (wrong[..., 1:] * wrong[..., :-1]).mean() / wrong.square().mean()
        assert abs(float(neighbours)) < 0.15
    assert float(psnr(last, x)) > float(psnr(normal.b, x)) + 12


def test_message_passing_beats_the_papers_steps_untrained():
    x = photograph()
    operator = parse("cs:ratio=0.25,kind=scrambled", (1, 128, 128))
    normal, found = Normal(operator, operator.A(x), (1, 128, 128)), {}
    for form in ("ddim", "oamp"):
        made = Unrolled.of(1, (32, 64, 128, 256), 1, 4, form=form)
        made.begin(priors.load("natural-gray"))
        *_, last = made.walk(normal)
        found[form] = float(psnr(last, x))
    assert found["oamp"] > found["ddim"] + 5


def test_a_step_is_told_apart_by_its_injectors_alone():
    _, _, normal = measured()
    made = network()
    for t in (1, 2, 3):
        before = list(made.walk(normal))
        stage = made.noise.middle  # any stage
        injector = stage.chain.bodies[1]
        injector.back[t - 1].weight.data += 0.5
        after = list(made.walk(normal))
        changed = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
        assert changed == [3 - k <= t for k in range(3)]  # the walk begins with step 3


def test_it_starts_from_a_prior_exactly():
    prior = priors.load("natural-gray")
    made = InjectedDRUNet(1, (32, 64, 128, 256), 1, 3)
    made.take(prior)
    x, _, normal = measured(shape=(1, 40, 44))
    with torch.no_grad():
        mine = made(x, torch.tensor(0.3), normal, 2) * 0.3
        theirs = prior.network.noise(x, 0.3)
    assert torch.allclose(mine, theirs, rtol=0, atol=1e-5)


def test_it_does_not_start_from_another_layout():
    with pytest.raises(ValueError, match="another layout"):
        network().begin(priors.load("natural-gray"))
    with pytest.raises(ValueError, match="not a DRUNet that predicts noise"):
        network().begin(Gaussian(torch.zeros(1, 8, 8), Hartley(), torch.ones(1, 8, 8)))


@pytest.mark.parametrize("spec", ["mask:keep=0.4", "ct:angles=9", "blur:sigma=1", SENSING])
def test_what_is_measured_is_of_one_scale(spec):
    shape = (1, 24, 24)
    x, _, normal = measured(spec, shape)
    v = torch.rand(1, *shape)
    for _ in range(60):
        v = normal.gram(v)
        v = v / v.norm()
    assert float(normal.gram(v).norm()) == pytest.approx(1, abs=0.02)
    assert torch.allclose(normal.b, normal.gram(x), atol=1e-4)
    assert normal.exact == spec.startswith(("mask", "cs"))
    if normal.exact:
        assert torch.allclose(normal.gram(normal.gram(x)), normal.gram(x), atol=1e-5)


def test_a_nonlinear_operator_is_refused():
    operator = parse("jpeg:quality=50", (1, 16, 16))
    with pytest.raises(ValueError, match="needs a linear operator"):
        Normal(operator, torch.zeros(1, 1, 16, 16), (1, 16, 16))


# -- gradients and memory --------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "bound"), [(F64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("keep", ["steps", "steps and blocks"])
@pytest.mark.parametrize("form", ["ddim", "oamp"])
def test_gradients_do_not_depend_on_what_is_kept(form, keep, dtype, bound):
    x, _, normal = measured(dtype=dtype)
    made = network(form=form).to(dtype)

    def gradient(what):
        made.keep(what)
        made.zero_grad()
        out = made(normal)
        (out - x).abs().mean().backward()
        return out, torch.cat([p.grad.flatten() for p in made.parameters() if p.grad is not None])

    (out, mine), (same, theirs) = gradient(keep), gradient("everything")
    assert torch.equal(out, same)
    assert (mine - theirs).norm() <= bound * theirs.norm()


def kept(steps, what):
    made = network(steps)
    made.keep(what)
    x, _, normal = measured(shape=(1, 32, 32))
    alive = {p.untyped_storage().data_ptr() for p in made.parameters()}
    return saved_bytes(lambda: (made(normal) - x).abs().mean(), alive)


def test_memory_is_constant_in_the_number_of_steps():
    few, many = kept(1, "steps and blocks"), kept(6, "steps and blocks")
    assert many.forward <= 1.02 * few.forward + 100
    assert many.peak <= 1.02 * few.peak + 1000
    few, many = kept(1, "everything"), kept(6, "everything")
    assert many.forward > 5 * few.forward


def test_memory_falls_by_nine_tenths():
    plain = kept(3, "everything")
    assert kept(3, "steps and blocks").forward < 0.1 * plain.forward
    # what is computed once more, one step at a time, counts too
    assert kept(3, "steps").peak < 0.4 * plain.peak
    assert kept(3, "steps and blocks").peak < 0.3 * plain.peak


def test_any_denoiser_can_be_tuned_through_its_steps():
    from monai.networks.nets import DiffusionModelUNet
    from monai.networks.schedulers import DDPMScheduler

    torch.manual_seed(0)
    net = DiffusionModelUNet(
        spatial_dims=2,
        in_channels=1,
        out_channels=1,
        channels=(8, 16),
        attention_levels=(False, False),
        num_res_blocks=1,
        norm_num_groups=4,
    )
    for p in net.parameters():  # its last layer starts at zero
        p.data += 0.02 * torch.randn_like(p)
    prior = priors.from_monai(net, DDPMScheduler(1000), value_range=(0.0, 1.0))
    made = Unrolled(Outside(prior.requires_grad_(True)), steps=3)
    x, _, normal = measured(shape=(1, 16, 16))
    found = []
    for what in ("everything", "steps"):
        made.keep(what)
        made.zero_grad()
        (made(normal) - x).abs().mean().backward()
        gradients = [p.grad.flatten() for p in made.parameters() if p.grad is not None]
        found.append(torch.cat(gradients))
    assert len(found[0]) > 1000
    assert (found[0] - found[1]).norm() <= 1e-4 * found[0].norm()


# -- what it can reach -----------------------------------------------------------------------------


class Linear(nn.Module):
    """One matrix a step: all that a Gaussian needs."""

    def __init__(self, size, steps):
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(size, size, bias=False) for _ in range(steps))
        for m in self.maps:
            nn.init.zeros_(m.weight)

    def forward(self, p, s, normal, t):
        return self.maps[t - 1](p.flatten(1)).reshape(p.shape)


def trained_error(C, steps=300):
    """Mean square error, exactly, after training; and that of the posterior mean."""
    operator = parse("cs:ratio=0.25,kind=scrambled,block=8", (1, 8, 8))
    root = torch.linalg.cholesky(C)
    x = root.T.reshape(64, 1, 8, 8)  # sum over these of |A x - x|^2 is the mean for N(0, C)
    normal = Normal(operator, operator.A(x), (1, 8, 8))
    made = Unrolled(Linear(64, 3), steps=3, start="adjoint", middle=0.0).to(F64)
    search = torch.optim.LBFGS(made.parameters(), max_iter=steps, line_search_fn="strong_wolfe")

    def loss():
        search.zero_grad()
        value = (made(normal) - x).square().sum()
        value.backward()
        return value

    search.step(loss)
    A = operator.A(torch.eye(64, dtype=F64).reshape(64, 1, 8, 8)).flatten(1).T
    best = torch.trace(C - C @ A.T @ torch.linalg.solve(A @ C @ A.T, A @ C))
    return float(made(normal).sub(x).square().sum()), float(best)


def test_it_reaches_the_posterior_mean_of_a_gaussian():
    axis = torch.arange(8, dtype=F64)
    grid = torch.cartesian_prod(axis, axis)
    C = torch.exp(-torch.cdist(grid, grid) / 3) + 1e-3 * torch.eye(64, dtype=F64)
    error, best = trained_error(C)
    assert best <= error <= 1.02 * best


def test_it_cannot_beat_the_measurement_where_nothing_is_known():
    error, best = trained_error(torch.eye(64, dtype=F64), steps=50)
    assert best == pytest.approx(48)  # what is not measured
    assert error >= best - 1e-9


# -- as a solver -----------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path):
    trained = Trained(
        operator=SENSING, noise=(0, 0), patch=16, levels=(0, 0), spread=0.0, family="idm"
    )
    card = priors.Card(name="mine", channels=1, spatial_dims=2)
    path = tmp_path / "mine.safetensors"
    weights.save(path, PairPrior(card, network(), trained))
    return path


def test_it_is_saved_and_restores(file):
    solver, prior = load(file)
    assert isinstance(solver, IDM)
    x, operator, normal = measured(shape=(1, 19, 26))  # of no block's size, nor a multiple of 8
    y = measure(operator, x, seed=0)
    result = restore.solve(y, operator, solver=file, samples=2)
    with torch.no_grad():
        assert torch.allclose(result.mean, prior.network(normal), atol=1e-5)
    assert result.std.max() == 0
    assert result.cost.calls == 3
    alone = restore.solve(y[:1], operator, solver=file)
    assert torch.equal(alone.mean, result.mean[:1])


@pytest.mark.parametrize(
    ("spec", "noise"),
    [
        ("cs:ratio=0.1,kind=scrambled,block=8", 0.0),
        ("cs:ratio=0.25,kind=block,block=8", 0.0),
        ("mask:keep=0.25", 0.0),
        (SENSING, 0.05),
    ],
)
def test_weights_of_another_measurement_are_refused(spec, noise, file):
    operator = operators.parse(spec, (1, 16, 16), noise=noise)
    y = measure(operator, torch.rand(1, 1, 16, 16), seed=0)
    with pytest.raises(ValueError, match=r"'mine' was trained for 'cs:ratio=0.25"):
        restore.solve(y, operator, solver=file)


def test_a_diffusions_network_is_refused():
    _, prior = load("resshift-x4")
    operator = parse(prior.trained.operator, (3, 32, 32), noise=0.01)
    y = measure(operator, torch.rand(1, 3, 32, 32), seed=0)
    with pytest.raises(ValueError, match="no unrolled network"):
        restore.solve(y, operator, prior=prior, solver=IDM())
