"""Weights: round trips, refusals in one sentence, no pickles, and the files that ship."""

import dataclasses
import json
import math
import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import priors
from priors import Card, Tiled, weights
from priors.networks import Handover, NoisePredictor
from priors.powerlaw import PowerLaw

WIDTHS, BLOCKS = (2, 3, 4, 5), 1
LAW = PowerLaw(colours=((1.0,),), mean=(0.45,), mean_std=(0.2,), amplitude=(2e-3,), exponent=(1.9,))


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tiny():
    network = NoisePredictor(Card(name="tiny", channels=1), WIDTHS, BLOCKS)
    for i, p in enumerate(network.parameters()):
        p.data = random(*p.shape, seed=i) / math.sqrt(2 * p[0].numel())
    return network.eval().requires_grad_(False)


@pytest.fixture
def saved(tmp_path):
    network = tiny()
    priors.save_network(tmp_path / "tiny.safetensors", network, LAW, WIDTHS, BLOCKS)
    return tmp_path / "tiny.safetensors", network


@pytest.fixture
def shelf(tmp_path, monkeypatch):
    """A folder of weights like the package's, with one prior called `plain`."""

    def shelve(sha256=None):
        path = tmp_path / "plain.safetensors"
        priors.save_network(path, tiny(), LAW, WIDTHS, BLOCKS)
        (tmp_path / "cards.toml").write_text(
            f'[plain]\nchannels = 1\nlicence = "CC0-1.0"\ntraining_data = "none"\n'
            f'sha256 = "{sha256 or weights.sha256(path)}"\ndescription = "for tests"\n'
            "sigma_range = [0.002, 1.5]\nsteps = 7\n[plain.psnr]\nset12 = 30.5\n"
        )
        return path

    monkeypatch.setattr(weights, "SHELF", dataclasses.replace(weights.SHELF, folder=tmp_path))
    return shelve


# -- round trip --------------------------------------------------------------------------------


def test_round_trip_up_to_float16(saved):
    path, network = saved
    prior = priors.load(path)
    assert isinstance(prior, Handover)
    assert not prior.training
    assert not any(p.requires_grad for p in prior.parameters())
    loaded = dict(prior.network.net.named_parameters())
    for name, p in network.net.named_parameters():
        assert loaded[name].dtype == torch.float32
        # half precision: 11 significant bits, or steps of 2^-24 below its normal numbers
        assert bool(((loaded[name] - p).abs() <= p.abs() * 2**-11 + 2**-25).all())
    assert prior.gaussian.law == LAW
    assert (prior.low, prior.high) == weights.HANDOVER
    assert (prior.card.name, prior.card.channels) == ("tiny", 1)
    assert prior.card.sha256 == weights.sha256(path)
    x = random(2, 1, 40, 37, seed=50)
    network.net.load_state_dict({k: v.half().float() for k, v in network.net.state_dict().items()})
    torch.testing.assert_close(prior(x, 0.2), network(x, 0.2), rtol=1e-4, atol=1e-5)
    assert torch.equal(prior(x, 3.0), prior.gaussian(x, 3.0))


def test_a_saved_file_is_half_precision_and_plain_json(saved):
    path, _ = saved
    assert {t.dtype for t in load_file(path).values()} == {torch.float16}
    with safe_open(path, framework="pt") as file:
        about = json.loads(file.metadata()["restore"])
    assert about["kind"] == "noise-predictor"
    assert (about["channels"], about["widths"], about["blocks"]) == (1, [*WIDTHS], BLOCKS)
    assert PowerLaw.from_dict(about["power_law"]) == LAW


def test_saving_again_gives_the_same_bytes(saved, tmp_path):
    path, network = saved
    priors.save_network(str(tmp_path / "twin.safetensors"), network, LAW, WIDTHS, BLOCKS)
    assert path.read_bytes() == (tmp_path / "twin.safetensors").read_bytes()


# -- tiles -------------------------------------------------------------------------------------


def test_tiles_hold_the_network_only(saved):
    path, _ = saved
    whole, tiled = priors.load(path), priors.load(path, tile=96)
    assert isinstance(tiled.network, Tiled)
    assert (tiled.network.sides, tiled.network.overlap) == ((96,), 64)
    assert not isinstance(tiled.gaussian, Tiled)
    assert tiled.card.extra["tile"] == 96
    x = random(1, 1, 32, 200, seed=50)
    assert torch.equal(tiled(x, 3.0), whole(x, 3.0))  # the closed form sees the whole image
    small = random(2, 1, 96, 64, seed=51)
    assert torch.equal(tiled(small, 0.1), whole(small, 0.1))


def test_tiles_equal_the_whole_away_from_the_cuts(saved):
    """Tiles begin at multiples of 8, as the network's grid does; it looks some 55 pixels far."""
    path, _ = saved
    whole, tiled = priors.load(path), priors.load(path, tile=256)
    x = random(1, 1, 32, 448, seed=50)
    expected, found = whole(x, 0.1), tiled(x, 0.1)
    far = [*range(256 - 64), *range(192 + 64, 448)]
    torch.testing.assert_close(found[..., far], expected[..., far], rtol=0, atol=1e-5)
    # at the cut there is a difference, small against what the network does
    error = (found - expected).abs().max()
    assert 0 < float(error) < 0.05 * float((expected - x).abs().max())


def test_tiles_no_larger_than_the_overlap_are_refused(saved):
    for tile in (64, 0, -8):
        with pytest.raises(ValueError, match="overlap < tile"):
            priors.load(saved[0], tile=tile)


# -- refusals ----------------------------------------------------------------------------------


def test_truncated_and_garbled_files_are_refused(saved):
    path, _ = saved
    whole = path.read_bytes()
    for data in (b"", whole[:4], whole[:200], whole[:-1], b"\xff" * 500):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="not a readable safetensors file") as refusal:
            priors.load(path)
        assert "\n" not in str(refusal.value)


def test_other_safetensors_are_refused(saved):
    path, _ = saved
    for metadata in (None, {"format": "pt"}, {"restore": '{"kind": "other"}'}):
        save_file({"a": torch.zeros(3)}, path, metadata)
        with pytest.raises(ValueError, match="does not say how to rebuild") as refusal:
            priors.load(path)
        assert "\n" not in str(refusal.value)


def test_tensors_that_do_not_fit_are_refused(saved):
    path, _ = saved
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors.pop("m_head.weight")
    save_file(tensors, path, metadata)
    with pytest.raises(ValueError, match="do not fit the network") as refusal:
        priors.load(path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "metadata",
    ["no json", "[]", '{"kind": "noise-predictor"}', '{"kind": "noise-predictor", "x": 1}'],
)
def test_unreadable_descriptions_are_refused(saved, metadata):
    save_file(load_file(saved[0]), saved[0], {"restore": metadata})
    with pytest.raises(ValueError, match=r"does not say how to rebuild|do not fit") as refusal:
        priors.load(saved[0])
    assert "\n" not in str(refusal.value)


def test_missing_files_are_named(tmp_path):
    for path in (tmp_path / "none.safetensors", str(tmp_path / "none.safetensors")):
        with pytest.raises(FileNotFoundError, match=r"no weights at '.*none\.safetensors'"):
            priors.load(path)
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(FileNotFoundError, match="no weights"):
        priors.load(tmp_path / "folder.safetensors")


def test_unknown_names_get_the_nearest_word(shelf):
    shelf()
    with pytest.raises(ValueError, match=r"unknown prior 'plane' .*did you mean 'plain'\?$"):
        priors.load("plane")
    with pytest.raises(ValueError, match=r"unknown prior 'zzz' .*choose one of plain\.$"):
        priors.load("zzz")
    with pytest.raises(ValueError, match=r"unknown prior 'net\.pth'"):
        priors.load("net.pth")


# -- by name -----------------------------------------------------------------------------------


def test_names_load_with_their_cards(shelf):
    path = shelf()
    card = priors.available()["plain"]
    assert (card.name, card.channels, card.spatial_dims) == ("plain", 1, 2)
    assert (card.licence, card.training_data, card.description) == ("CC0-1.0", "none", "for tests")
    assert card.sigma_range == (0.002, 1.5)
    assert card.extra == {"steps": 7, "psnr": {"set12": 30.5}}
    prior = priors.load("plain")
    assert prior.card == card
    x = random(1, 1, 33, 32)
    assert torch.equal(prior(x, 0.1), priors.load(path)(x, 0.1))
    assert priors.load("plain", tile=128).card.extra["tile"] == 128


def test_what_available_returns_is_the_callers(shelf):
    shelf()
    priors.available().clear()
    assert "plain" in priors.available()


def test_a_changed_file_is_refused(shelf):
    path = shelf()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(
        ValueError, match=r"^weights of prior 'plain' have sha256 .*install again\.$"
    ):
        priors.load("plain")


def test_a_changed_card_is_refused(shelf):
    shelf(sha256="0" * 64)
    with pytest.raises(ValueError, match=r"expected 000000000000\.\.\."):
        priors.load("plain")


def test_a_missing_file_is_said_to_be_missing(shelf):
    shelf().unlink()
    with pytest.raises(FileNotFoundError, match="weights of prior 'plain' are missing"):
        priors.load("plain")


def test_pickles_are_never_opened(tmp_path):
    """A pickle that would leave a trace is refused, whatever its suffix, and leaves none."""

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trace"),)

    for name in ("bomb.safetensors", "bomb.pt"):
        torch.save({"a": Bomb()}, tmp_path / name)
        with pytest.raises(ValueError, match=r"readable safetensors|unknown prior"):
            priors.load(tmp_path / name)
    assert not (tmp_path / "trace").exists()


def test_no_source_file_reads_pickles():
    folder = weights.SHELF.folder.parent
    for path in folder.rglob("*.py"):
        text = path.read_text()
        assert not any(
            word in text for word in ("torch.load(", "import pickle", "allow_pickle=True")
        )
    assert {p.suffix for p in weights.SHELF.folder.iterdir()} <= {".toml", ".safetensors"}


# -- the files that ship -----------------------------------------------------------------------


def test_every_file_has_a_card_and_every_card_a_file():
    files = {path.stem for path in weights.SHELF.folder.glob("*.safetensors")}
    assert files == set(priors.available())


@pytest.mark.parametrize("name", sorted(priors.available()))
def test_what_ships(name):
    card, path = priors.available()[name], weights.SHELF.folder / f"{name}.safetensors"
    assert path.stat().st_size <= 10 * 2**20
    assert weights.sha256(path) == card.sha256
    for text in (card.licence, card.training_data, card.description):
        assert text not in ("", "not stated")
    low, high = card.sigma_range
    assert 0 < low < high
    prior = priors.load(name)
    # discs, which no photograph shows: noise is taken off, at every level, and the image stays
    axis = torch.linspace(-1, 1, 64)
    radius = (axis[:, None] ** 2 + axis[None, :] ** 2).sqrt()
    image = torch.where(radius < 0.7, 0.7, 0.3) - torch.where(radius < 0.3, 0.2, 0.0)
    x = image.expand(1, card.channels, 64, 64)
    for sigma in (0.05, 0.2, 1.0, 10.0):
        noisy = x + sigma * random(*x.shape)
        with torch.no_grad():
            error = (prior(noisy, sigma) - x).square().mean().sqrt()
        assert float(error) < 0.6 * sigma
