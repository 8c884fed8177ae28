"""`restore train`: from a folder of pictures to weights that restore, resumable to the bit."""

import json

import pytest
import torch
from skimage import data

import restore
from operators import measure, parse
from priors.training import Recipe, fit
from restore import images
from restore.cli import main
from restore.trained import available, families, load, trainable, weights
from restore.trained.network import PairNetwork
from restore.trained.pair_prior import PairPrior
from restore.trained.pairs import Pairs, residual_std
from restore.trained.residual import regression_loss, residual_loss
from restore.trained.training import Plan, Training
from restore.trained.trainwork import read_scenes, train_files

NAMES = ("astronaut", "coffee", "chelsea", "rocket")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for name in NAMES:
        x = torch.from_numpy(getattr(data, name)()).permute(2, 0, 1)[:, :160, :192].float() / 255
        images.write(folder / f"{name}.png", x)
    return folder


def plan(family="residual", steps=6, **changes):
    constants = {"operator": "downsample:factor=4", "noise": (0.0, 0.02), "size": "small"}
    recipe = Recipe(steps=steps, warmup=2, bfloat16=False)
    return Plan(**constants | {"family": family, "patch": 32, "recipe": recipe} | changes)


@pytest.mark.parametrize("family", ["residual", "regression", "resshift"])
def test_files_train_save_load_and_restore(family, pictures, tmp_path):
    out = tmp_path / "mine.safetensors"
    outcome = train_files([pictures], out, plan(family), progress=False)
    assert outcome.degraded > 10
    card = json.loads(out.with_suffix(".json").read_text())
    assert card["plan"]["operator"] == "downsample:factor=4"
    assert out.with_suffix(".png").stat().st_size > 1000
    assert not out.with_suffix(".run.safetensors").exists()
    prior = weights.load(out)
    assert isinstance(prior, PairPrior)
    assert prior.trained.noise == (0.0, 0.02)
    if family == "regression":
        return
    physics = parse("downsample:factor=4", (3, 48, 40), noise=0.01)
    x = torch.rand(1, 3, 48, 40, generator=torch.Generator().manual_seed(0))
    y = measure(physics, x, seed=1)
    result = restore.solve(y, physics, solver=out, samples=2)
    assert result.samples.shape == (2, 1, 3, 48, 40)
    assert result.provenance["prior"]["sha256"] == weights.sha256(out)


def test_a_stopped_run_goes_on_to_the_same_bits(pictures, tmp_path):
    scenes = read_scenes([pictures], 32)
    whole = Training(plan(steps=7), scenes)
    for _ in whole.run(None):
        pass
    checkpoint = tmp_path / "run.safetensors"
    for done in Training(plan(steps=7), scenes).run(checkpoint, every=2):
        if done.step == 5:  # killed after the checkpoint of step 4
            break
    again = Training(plan(steps=7), scenes)
    steps = [done.step for done in again.run(checkpoint, every=2)]
    assert steps[0] == 5
    for a, b in zip(whole.network.parameters(), again.network.parameters(), strict=True):
        assert torch.equal(a, b)


UNROLLED = {"family": "idm", "noise": (0.0, 0.0), "batch": 2}


@pytest.mark.parametrize(
    ("operator", "noise"),
    [
        ("cs:ratio=0.25,kind=scrambled,block=16", 0.0),
        ("mask:keep=0.4", 0.01),
        ("ct:angles=9", 0.01),
    ],
)
def test_an_unrolled_network_trains_and_restores(operator, noise, pictures, tmp_path):
    out = tmp_path / "mine.safetensors"
    made = plan(**UNROLLED | {"operator": operator, "noise": (noise, noise)}, steps=4)
    outcome = train_files([pictures], out, made, progress=False)
    assert outcome.words().count("dB") == 2  # nothing is drawn
    assert out.stat().st_size < 1.4e6  # half precision
    physics = parse(operator, (3, 40, 40), noise=noise)
    x = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    result = restore.solve(measure(physics, x, seed=1), physics, solver=out)
    assert result.mean.shape == x.shape
    assert result.cost.calls == 3


def test_grey_pictures_train_mri_with_a_phase(tmp_path):
    folder, out = tmp_path / "grey", tmp_path / "mri.safetensors"
    folder.mkdir()
    for name in ("camera", "moon"):
        x = torch.from_numpy(getattr(data, name)()).float()[None, :160, :160] / 255
        images.write(folder / f"{name}.png", x)
    made = plan(**UNROLLED | {"operator": "mri:acceleration=4"}, steps=2)
    train_files([folder], out, made, progress=False)
    physics = parse("mri:acceleration=4", (2, 40, 40))
    x = torch.randn(1, 2, 40, 40, generator=torch.Generator().manual_seed(0))
    result = restore.solve(measure(physics, x, seed=1), physics, solver=out)
    assert result.mean.shape == x.shape
    assert float(result.misfit) < 1e-3  # projected


def test_an_unrolled_network_starts_from_another(pictures, tmp_path):
    first, out = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    cs = "cs:ratio={},kind=scrambled,block=16"
    made = plan(**UNROLLED | {"operator": cs.format(0.1)}, steps=2)
    train_files([pictures], first, made, progress=False)
    made = plan(**UNROLLED | {"operator": cs.format(0.5), "begin": str(first)}, steps=1)
    training = Training(made, read_scenes([pictures], 32))
    learnt = weights.load(first).network.state_dict()
    for name, value in training.network.state_dict().items():
        assert torch.equal(value, learnt[name])
    train_files([pictures], out, made, progress=False)
    with pytest.raises(ValueError, match="family 'rddm' cannot start from prior 'natural'"):
        plan("rddm", begin="natural")


def test_an_unrolled_network_trains_to_the_same_bits_whatever_is_kept(pictures):
    scenes, found = read_scenes([pictures], 32), []
    for keep in ("everything", "steps", "steps and blocks"):
        made = plan(**UNROLLED | {"operator": "mask:keep=0.4", "keep": keep}, steps=3)
        training = Training(made, scenes)
        found.append([done.loss for done in training.run(None)])
    assert found[0][0] == found[1][0] == found[2][0]
    assert found[1] == pytest.approx(found[0], rel=1e-4)
    assert found[2] == pytest.approx(found[0], rel=1e-4)


@pytest.mark.parametrize("target", [residual_loss, regression_loss])
def test_training_learns(target):
    # one pattern, blurred: what is missing is always the same, so that any working loss finds it
    stripes = torch.zeros(4, 1, 32, 32)
    stripes[..., ::2] = 0.5
    pairs = Pairs(lambda generator: stripes, "blur:sigma=1", (0.0, 0.0))
    spread = residual_std(pairs, 2, torch.Generator())
    network = PairNetwork(1, (8, 8, 8, 8), 1, spread)
    loss = target(pairs, network)
    recipe = Recipe(steps=100, warmup=10, bfloat16=False)
    losses = [done.loss for done in fit(network, loss, recipe)]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


def test_the_target_for_every_schedule_is_trainable_and_known():
    assert {"residual", "regression", *families()} == set(trainable())


REFUSALS = {
    "family": (["resshfit"], "did you mean 'resshift'?"),
    "operator": (["residual", "--operator", "blurr"], "did you mean 'blur'?"),
    "noise": (["residual", "--noise", "a:b"], "expected one number or LOW:HIGH"),
    "interval": (["residual", "--noise", "0.2:0.1"], "expected 0 <= low <= high"),
    "suffix": (["residual", "--out", "mine.pth"], "must end in .safetensors"),
    "folder": (["residual", "--images", "empty"], "holds no PNG, JPEG or TIFF"),
    "small": (["residual", "--images", "small"], "training needs sides of at least 128"),
    "size": (["residual", "--size", "large"], "'large' is unknown"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_bad_requests_get_one_sentence(case, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "small").mkdir()
    for i in "ab":
        images.write(tmp_path / "small" / f"{i}.png", torch.zeros(3, 64, 64))
    words, said = REFUSALS[case]
    given = dict(zip(words[1::2], words[2::2], strict=True))
    defaults = {
        "--operator": "downsample:factor=4",
        "--images": str(pictures),
        "--out": "mine.safetensors",
    }
    options = [word for pair in (defaults | given).items() for word in pair]
    assert main(["train", words[0], *options, "--steps", "2", "--quiet"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("mine*"))


def test_a_broken_checkpoint_is_refused(pictures, tmp_path):
    out = tmp_path / "mine.safetensors"
    out.with_suffix(".run.safetensors").write_bytes(b"not weights")
    with pytest.raises(ValueError, match="not a readable safetensors file"):
        train_files([pictures], out, plan(), progress=False)
    assert not out.exists()


def test_every_name_that_ships_loads():
    for name, (family, _) in available().items():
        solver, prior = load(name)
        assert solver.name == family
        assert prior.card.sha256
