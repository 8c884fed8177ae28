"""Specifications: every option of every constructor, and one sentence for every mistake."""

import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import operators
from operators.parse import OPERATORS


def test_values_are_read_by_the_annotation():
    physics = operators.parse("blur:kernel=motion,length=5,angle=90", (1, 9, 9))
    torch.testing.assert_close(physics.filter[0, 0], torch.full((5, 1), 0.2))
    assert physics.spec == "blur:kernel=motion,length=5,angle=90"
    assert operators.parse(" ct : angles = 7 ", (1, 8, 8)).angles.shape == (7,)
    assert operators.parse("mri:coils=3", (2, 8, 16)).coil_maps.shape == (1, 3, 8, 16)


def test_noise_comes_from_either_side_but_once():
    assert operators.noise_sigma(operators.parse("denoise:noise=0.2", (1, 4, 4))) == pytest.approx(
        0.2
    )
    with pytest.raises(ValueError, match="give it once"):
        operators.parse("denoise:noise=0.2", (1, 4, 4), noise=0.1)


def test_every_constructor_keeps_the_convention():
    for entry in OPERATORS.values():
        first, *rest = inspect.signature(entry.build).parameters.values()
        assert first.name == "image_shape"
        assert all(p.kind is p.KEYWORD_ONLY and p.default is not p.empty for p in rest)
        assert rest[-1].name == "noise"
        assert rest[-1].default == 0.0


def test_available_lists_what_can_be_written():
    table = operators.available()
    assert set(table) == {"denoise", "blur", "mask", "downsample", "cs", "ct", "mri", "decolorise"}
    doc, options = table["blur"]
    assert doc.endswith(".")
    assert options["sigma"] == 2.0
    assert options["boundary"] == "circular"
    assert "coil_maps" not in table["mri"][1]  # a tensor cannot be written


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("blurr:sigma=2", "did you mean 'blur'"),
        ("decolorize", "did you mean 'decolorise'"),
        ("zzz", "choose one of blur, cs, ct, decolorise, denoise, downsample, mask, mri"),
        ("", "choose one of"),
        ("blur:sigm=2", "did you mean 'sigma'"),
        ("ct:sigma=2", "choose one of angles, noise"),
        ("blur:kernel=gausian", "did you mean 'gaussian'"),
        ("blur:sigma=wide", "expected a number"),
        ("blur:sigma", "write option=value"),
        ("blur:sigma=", "write option=value"),
        ("blur:", "write option=value"),
        ("blur:sigma=2,sigma=3", "gives sigma twice"),
        ("blur:sigma=nan", "expected a number in"),
        ("blur:sigma=-1", "expected a number in"),
        ("downsample:factor=2.5", "expected a whole number"),
        ("downsample:factor=0", "of at least 1"),
        ("mask:box=40", "expected HEIGHTxWIDTH"),
        ("mask:box=40x60", "does not fit into the 16x16"),
        ("mask:keep=1.1", r"expected a number in \(0, 1\]"),
        ("mask:keep=0.5,seed=-1", "seed is -1"),
        ("denoise:noise=-0.1", "noise is -0.1"),
    ],
)
def test_mistakes_are_named(spec, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        operators.parse(spec, (3, 16, 16))
    assert str(caught.value).endswith(".")


def test_missing_file():
    with pytest.raises(FileNotFoundError, match=r"'none\.png' is not a file"):
        operators.parse("mask:file=none.png", (1, 8, 8))


names = st.one_of(st.sampled_from(sorted(OPERATORS)), st.text(max_size=8))
keys = st.sampled_from(sorted({o for _, d in operators.available().values() for o in d} - {"file"}))
values = st.one_of(
    st.text(max_size=6),
    st.floats().map(str),
    st.integers(-(10**30), 10**30).map(str),
    st.sampled_from(["1x1", "0x0", "9x9+1+1", "motion", "dense", "valid", "1e999", "²"]),
)
items = st.tuples(st.one_of(keys, st.text(max_size=4).filter(lambda t: t != "file")), values)


@settings(max_examples=300, deadline=None)
@given(names, st.lists(items, max_size=3), st.text(max_size=3))
def test_only_one_sentence_ever_escapes(name, options, tail):
    spec = name + ":" + ",".join(f"{k}={v}" for k, v in options) + tail
    try:
        operators.parse(spec, (2, 6, 6))
    except ValueError as error:
        message = str(error)
        assert "\n" not in message
        assert message.endswith(".")


@pytest.mark.parametrize(
    ("spec", "clean"),
    [
        ("denoise", (3, 12, 15)),
        ("blur:sigma=1", (3, 12, 15)),
        ("blur:sigma=1,boundary=valid", (3, 12, 15)),
        ("mask:keep=0.2", (1, 12, 15)),
        ("downsample:factor=3", (1, 24, 27)),
        ("decolorise", (3, 12, 15)),
    ],
)
def test_image_shape_from_inverts_the_measurement_shape(spec, clean):
    y = operators.parse(spec, clean).A(torch.zeros(1, *clean))
    assert operators.image_shape_from(spec, y.shape[1:]) == clean


@pytest.mark.parametrize("spec", ["cs", "ct:angles=9", "mri"])
def test_other_measurements_ask_for_the_shape(spec):
    with pytest.raises(ValueError, match="give --shape CxHxW"):
        operators.image_shape_from(spec, (2, 8, 8))
    with pytest.raises(ValueError, match="give --shape CxHxW"):
        operators.image_shape_from(spec, (1, 960))  # what compressed sensing measures
