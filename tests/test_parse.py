"""Specifications: every option of every constructor, and one sentence for every mistake."""

import inspect
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import operators
from operators.parse import OPERATORS, _read_value


def test_values_are_read_by_the_annotation():
    physics = operators.parse("blur:kernel=motion,length=5,angle=90", (1, 9, 9))
    torch.testing.assert_close(physics.filter[0, 0], torch.full((5, 1), 0.2))
    assert physics.spec == "blur:kernel=motion,length=5,angle=90"
    assert len(operators.parse(" ct : angles = 7 ", (1, 8, 8)).geometry.angles) == 7
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
    assert set(table) == set(OPERATORS)
    assert "operator" in table["slices"][1]
    doc, options = table["blur"]
    assert doc.endswith((".", "?"))
    assert options["sigma"] == 2.0
    assert options["boundary"] == "circular"
    assert "coil_maps" not in table["mri"][1]  # a tensor cannot be written


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("blurr:sigma=2", "did you mean 'blur'"),
        ("decolorize", "did you mean 'decolorise'"),
        ("zzz", f"choose one of {', '.join(sorted(OPERATORS))}"),
        ("", "choose one of"),
        ("blur:sigm=2", "did you mean 'sigma'"),
        ("ct:sigma=2", "choose one of angles, attenuation, "),
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
        ("mask:keep=0.5|denoise", r"'mask' applies no other operator; drop '\|denoise'"),
        ("slices:operator=denoise|denoise", "gives operator twice"),
        ("slices:axis=1|denoise", r"'slices' takes volumes \(C, D, H, W\)"),
    ],
)
def test_mistakes_are_named(spec, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        operators.parse(spec, (3, 16, 16))
    assert str(caught.value).endswith((".", "?"))


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("slices:axes=1|denoise", "did you mean 'axis'"),
        ("slices:axis=3|denoise", r"axis is 3, expected a whole number from 0 to 2; cut along"),
        ("slices:chunk=0|denoise", "chunk is 0"),
        ("slices|denoize", "did you mean 'denoise'"),
        ("slices:axis=0|", "operator '' is unknown"),
        ("slices|slices", r"'slices' takes volumes"),
        ("cassi", r"volume of 6x7x8 voxels; write slices:axis=0\|cassi\."),
        ("mask:kep=0.5", "did you mean 'keep'"),
        ("slices|mask:kep=0.5", "did you mean 'keep'"),
    ],
)
def test_mistakes_about_volumes_are_named(spec, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        operators.parse(spec, (3, 6, 7, 8))
    assert str(caught.value).endswith((".", "?"))


def test_a_bar_hands_the_rest_to_the_operator_of_the_slices():
    physics = operators.parse("slices:axis=1|mask:box=2x3,noise=0.1", (1, 5, 6, 7))
    assert physics.spec == "slices:axis=1|mask:box=2x3,noise=0.1"
    assert operators.noise_sigma(physics) == pytest.approx(0.1)
    y = physics.A(torch.ones(1, 1, 5, 6, 7))
    assert y.shape == (1, 6, 1, 5, 7)
    assert (y == 0).sum() == 6 * 2 * 3
    with pytest.raises(ValueError, match="give it once"):
        operators.parse("slices|denoise:noise=0.2", (1, 4, 4, 4), noise=0.1)


def test_shapes_that_are_none():
    for shape in [(8, 8), (1, 0, 8), (1, 8, 8.5), (1, 2, 3, 4, 5), (1, 2, -3, 4)]:
        with pytest.raises(ValueError, match=r"expected \(C, H, W\) or \(C, D, H, W\)"):
            operators.parse("denoise", shape)


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (int | float, "2", 2),
        (int | float, "2.5", 2.5),
        (float | Literal["auto"], "auto", "auto"),
        (Literal["auto"] | None, "auto", "auto"),
        (tuple[int, int] | None, "3x4", (3, 4)),
        (bool, "True", True),
    ],
)
def test_unions_are_read_by_whichever_member_can(annotation, text, value):
    assert _read_value("option", text, annotation) == value


def test_unions_name_all_that_would_do():
    with pytest.raises(ValueError, match="option is 'x', expected a whole number or a number"):
        _read_value("option", "x", int | float)


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
        assert message.endswith((".", "?"))


@pytest.mark.parametrize(
    ("spec", "clean"),
    [
        ("denoise", (3, 12, 15)),
        ("blur:sigma=1", (3, 12, 15)),
        ("blur:sigma=1,boundary=valid", (3, 12, 15)),
        ("mask:keep=0.2", (1, 12, 15)),
        ("downsample:factor=3", (1, 24, 27)),
        ("decolorise", (3, 12, 15)),
        ("denoise", (2, 5, 12, 15)),
        ("slices:axis=0|denoise", (3, 5, 6, 7)),
        ("slices:axis=1|downsample:factor=2,filter=bilinear", (1, 12, 5, 16)),
        ("slices:axis=2|decolorise", (3, 6, 7, 5)),
    ],
)
def test_image_shape_from_inverts_the_measurement_shape(spec, clean):
    y = operators.parse(spec, clean).A(torch.zeros(1, *clean))
    assert operators.image_shape_from(spec, y.shape[1:]) == clean


@pytest.mark.parametrize("spec", ["cs", "ct:angles=9", "mri", "slices|cs"])
def test_other_measurements_ask_for_the_shape(spec):
    with pytest.raises(ValueError, match="give --shape CxHxW"):
        operators.image_shape_from(spec, (2, 4, 8, 8) if "|" in spec else (2, 8, 8))
    with pytest.raises(ValueError, match="give --shape CxHxW"):
        operators.image_shape_from(spec, (1, 960))  # what compressed sensing measures
