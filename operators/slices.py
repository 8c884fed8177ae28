"""A volume slice by slice: every operator of flat images becomes one of volumes."""

# deepinv leaves its signatures untyped, so that no typed override agrees with them
# pyright: reportIncompatibleMethodOverride=false

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from deepinv.physics import LinearPhysics, NoiseModel, Physics
from torch import Tensor, nn

from .svd import SVD, has_svd, svd
from .validate import image_size, whole


class Slices(Physics):
    """`y_s = A_s(x_s)` for the slices `x_s` of a volume, stacked: `(B, S, ...)`.

    The slice axis of a measurement comes right behind the batch, before everything that the
    operator of one slice measures: an image `(B, C, D, H, W)` cut along its depth gives
    `(B, D, C, N, angles)` in CT.

    Args:
        operators: one for all slices, or one a slice.
        axis: spatial axis that is cut, 0 for the depth.
        image_shape: `(C, D, H, W)` of one volume.
        chunk: slices that one operator for all measures together.
    """

    def __init__(
        self, operators: Sequence[Physics], axis: int, image_shape: tuple[int, ...], chunk: int
    ) -> None:
        super().__init__(noise_model=operators[0].noise_model)
        self.img_size = image_shape
        self.operators = nn.ModuleList(operators)
        self.axis, self.chunk = axis, chunk
        if surrogates := {s for o in operators if (s := getattr(o, "surrogate", ""))}:
            self.surrogate = "; ".join(sorted(surrogates))

    def A(self, x: Tensor, **parameters: Any) -> Tensor:
        """Measure: `(B, C, D, H, W)` to `(B, S, ...)`; parameters go to every slice's operator."""
        return self._each(lambda a, x: a.A(x, **parameters), self._cut(x))

    def noise(self, x: Tensor, **parameters: Any) -> Tensor:
        """Add one draw of noise to all slices; an operator may keep it off, say, missing pixels."""
        return self._each(_place_noise, x, self.noise_model(x, **parameters))

    def sensor(self, x: Tensor) -> Tensor:
        """What the detector makes of noisy measurements, slice by slice."""
        return self._each(lambda a, y: a.sensor(y), x)

    def _cut(self, x: Tensor) -> Tensor:
        return x.movedim(2 + self.axis, 1)

    def _each(
        self, apply: Callable[..., Tensor], *stacks: Tensor, axis: int | None = None
    ) -> Tensor:
        """Apply an operator's method to stacks `(B, S, ...)`, slice by slice.

        Returns:
            A stack, or with `axis` the volume `(B, C, D, H, W)` that is cut along it.
        """
        dim = 1 if axis is None else 2 + axis
        count = stacks[0].shape[1]
        if torch.is_grad_enabled() and any(stack.requires_grad for stack in stacks):
            return torch.cat(list(self._pieces(apply, stacks)), 1).movedim(1, dim)
        out: Tensor | None = None  # written piece by piece: twice the memory is a volume too much
        done = 0
        for piece in self._pieces(apply, stacks):
            if out is None:
                shape = [piece.shape[0], *piece.shape[2:]]
                shape.insert(dim, count)
                out = piece.new_empty(shape)
            out.movedim(dim, 1)[:, done : done + piece.shape[1]] = piece
            done += piece.shape[1]
        assert out is not None
        return out

    def _pieces(self, apply: Callable[..., Tensor], stacks: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield what an operator's method makes of few slices, `(B, s, ...)`."""
        batch = stacks[0].shape[0]
        if len(self.operators) > 1:
            slices = zip(*(stack.unbind(1) for stack in stacks), strict=True)
            for operator, each in zip(self.operators, slices, strict=True):
                yield apply(operator, *each)[:, None]
            return
        (operator,), few = self.operators, max(1, self.chunk // batch)
        for some in zip(*(stack.split(few, 1) for stack in stacks), strict=True):
            size = some[0].shape[:2]
            yield apply(operator, *(piece.flatten(0, 1) for piece in some)).unflatten(0, size)


class LinearSlices(Slices, LinearPhysics):
    """`Slices` of linear operators; adjoint, pseudo-inverse and proximal map are slice-wise too.

    Attributes:
        dagger_tolerance: the loosest of the slices', None when one of them has none.
    """

    def __init__(
        self, operators: Sequence[Physics], axis: int, image_shape: tuple[int, ...], chunk: int
    ) -> None:
        super().__init__(operators, axis, image_shape, chunk)
        found = [getattr(a, "dagger_tolerance", 1e-2) for a in operators]
        self.dagger_tolerance = None if None in found else max(found)

    def A_adjoint(self, y: Tensor, **parameters: Any) -> Tensor:
        """Adjoint: `(B, S, ...)` to `(B, C, D, H, W)`."""
        return self._each(lambda a, y: a.A_adjoint(y, **parameters), y, axis=self.axis)

    def A_adjoint_A(self, x: Tensor, **parameters: Any) -> Tensor:
        """`A^T A x`, without the measurements of all slices at once."""
        return self._each(lambda a, x: a.A_adjoint_A(x, **parameters), self._cut(x), axis=self.axis)

    def A_dagger(self, y: Tensor, **options: Any) -> Tensor:
        """Pseudo-inverse of every slice; options go to the slices' operators."""
        return self._each(lambda a, y: a.A_dagger(y, **options), y, axis=self.axis)

    def prox_l2(self, z: Tensor, y: Tensor, gamma: float | Tensor, **options: Any) -> Tensor:
        """`argmin_x gamma/2 |A x - y|^2 + 1/2 |x - z|^2`, slice by slice.

        Args:
            z: volumes `(B, C, D, H, W)`.
            y: measurements `(B, S, ...)`.
            gamma: weight of the data, one number or one per volume `(B,)`.
            **options: for the slices' operators.

        Returns:
            Volumes `(B, C, D, H, W)`.
        """
        z = self._cut(z)
        weight = torch.as_tensor(gamma, dtype=z.dtype, device=z.device).reshape(-1, 1)
        weight = weight.expand(z.shape[:2]).reshape(*z.shape[:2], *[1] * (z.ndim - 2))
        return self._each(
            lambda a, z, y, weight: a.prox_l2(z, y, weight, **options),
            z,
            y,
            weight,
            axis=self.axis,
        )


class DecomposedSlices(LinearSlices):
    """Slices through one operator with a singular value decomposition."""

    def svd(self) -> SVD:
        """That of the slices' operator; coordinates `(B, S, ...)`."""
        (operator,) = self.operators
        assert isinstance(operator, Physics)
        form = svd(operator)
        return SVD(
            s=form.s,
            Vt=lambda x: self._each(lambda _, x: form.Vt(x), self._cut(x)),
            V=lambda c: self._each(lambda _, c: form.V(c), c, axis=self.axis),
            U=lambda c: self._each(lambda _, c: form.U(c), c),
            Ut=lambda y: self._each(lambda _, y: form.Ut(y), y),
        )


class _Drawn(NoiseModel):
    """Noise that was drawn before."""

    def __init__(self, noisy: Tensor) -> None:
        super().__init__()
        self.noisy = noisy

    def forward(self, x: Tensor, **_: Any) -> Tensor:
        return self.noisy


def _place_noise(operator: Physics, z: Tensor, noisy: Tensor) -> Tensor:
    own, operator.noise_model = operator.noise_model, _Drawn(noisy)
    try:
        return operator.noise(z)
    finally:
        operator.noise_model = own


def slices(
    image_shape: Sequence[int],
    *,
    operator: str | Physics | Sequence[Physics] = "denoise",
    axis: int = 0,
    chunk: int = 32,
    vary: str = "",
    step: float = 1.0,
    noise: float = 0.0,
) -> Slices:
    """Slices of a volume, each measured by an operator of flat images.

    Args:
        image_shape: `(C, D, H, W)` of one clean volume.
        operator: what happens to a slice: a specification (on the command line behind a bar,
            `slices:axis=1|ct:angles=60`), an operator, or a list of operators, one a slice, whose
            measurements have one shape.
        axis: spatial axis that is cut: 0 for D, 1 for H, 2 for W.
        chunk: slices measured together by one operator for all; bounds the memory.
        vary: option of a specification that grows by `step` from slice to slice:
            `slices:vary=seed|mri` gives each its own mask, `slices:vary=start,step=7.5|ct:angles=8`
            its own views.
        step: see `vary`.
        noise: standard deviation of Gaussian noise, for a specification; operators bring theirs.

    Returns:
        Operator from `(B, C, D, H, W)` to `(B, S, ...)`: the slice axis, then what one slice
        measures. Linear when all slices' operators are.

    Raises:
        ValueError: no volume, no such axis, a wrong number of operators, operators that differ in
            the shape of their measurements or in their noise, or whatever the operator refuses.
    """
    shape = image_size(image_shape, dims=(3,))
    axis = whole("axis", axis, low=0, high=2, do="cut along 0 (D), 1 (H) or 2 (W)")
    chunk = whole("chunk", chunk, low=1, do="give the slices measured together")
    flat = tuple(n for i, n in enumerate(shape) if i != axis + 1)
    each = _operators(operator, shape[axis + 1], flat, vary, step, noise)
    if all(isinstance(a, LinearPhysics) for a in each):
        kind = DecomposedSlices if len(each) == 1 and has_svd(each[0]) else LinearSlices
        return kind(each, axis, shape, chunk)
    return Slices(each, axis, shape, chunk)


def image_shape(
    measured: tuple[int, ...], *, operator: str = "denoise", axis: int = 0, **_: object
) -> tuple[int, ...]:
    """Shape `(C, D, H, W)` behind slices `(S, C, H, W)` that are themselves images."""
    from .parse import image_shape_from  # which imports this file

    axis = whole("axis", axis, low=0, high=2, do="cut along 0 (D), 1 (H) or 2 (W)")
    clean = image_shape_from(operator, measured[1:])
    return (*clean[: axis + 1], measured[0], *clean[axis + 1 :])


def _operators(
    operator: str | Physics | Sequence[Physics],
    count: int,
    flat: tuple[int, ...],
    vary: str,
    step: float,
    noise: float,
) -> list[Physics]:
    if isinstance(operator, str):
        from .parse import parse, series  # which imports this file

        if not vary:
            return [parse(operator, flat, noise=noise)]
        each = series(operator, flat, count, option=vary, step=step, noise=noise)
        _refuse_differences(each, count, flat)
        return each
    if vary:
        raise ValueError(
            f"vary is '{vary}' but ready-made operators have no options; give a list of them."
        )
    if noise != 0:
        raise ValueError(
            f"noise is {noise} but ready-made operators bring their own; set it in them."
        )
    each = [operator] if isinstance(operator, Physics) else list(operator)
    if wrong := [type(a).__name__ for a in each if not isinstance(a, Physics)]:
        raise ValueError(
            f"the operator of a slice is of type {wrong[0]}, expected a deepinv Physics; build one "
            "first."
        )
    if not isinstance(operator, Physics):
        _refuse_differences(each, count, flat)
    return each


def _refuse_differences(operators: list[Physics], count: int, flat: tuple[int, ...]) -> None:
    if len(operators) != count:
        raise ValueError(
            f"there are {len(operators)} operators for {count} slices; give one a slice, or one "
            "for all."
        )
    zero = next((b.new_zeros(1, *flat) for b in operators[0].buffers()), torch.zeros(1, *flat))
    measured = [tuple(a.A(zero.real).shape[1:]) for a in operators]
    noises = [_levels(a.noise_model) for a in operators]
    for i in range(1, count):
        if measured[i] != measured[0]:
            raise ValueError(
                f"slice {i} measures {measured[i]} numbers but slice 0 {measured[0]}, expected one "
                "shape; give masks instead of shorter measurements."
            )
        if noises[i] != noises[0]:
            raise ValueError(
                f"the noise of slice {i} is not that of slice 0, expected the same for all; "
                "give the operators one noise_model."
            )


def _levels(model: nn.Module) -> tuple[object, ...]:
    """The kind of a noise model and its numbers."""
    tensors = [(name, t.tolist()) for name, t in model.named_buffers()]
    numbers = [(name, v) for name, v in vars(model).items() if isinstance(v, int | float)]
    return (type(model), *sorted(tensors), *sorted(numbers))
