"""`restore check`: an operator on trial."""

from typing import Annotated

import typer

from restore.commands.options import AsJson, Seed, read_shape
from restore.console import print_json, show


def check(
    target: Annotated[
        str,
        typer.Argument(
            metavar="SPEC",
            help="For example blur:sigma=2; or your own, file.py:function or module:function.",
        ),
    ],
    shape: Annotated[
        str | None,
        typer.Option(metavar="CxHxW", help="One size, or CxDxHxW; by default eleven."),
    ] = None,
    seed: Seed = 0,
    verbose: Annotated[bool, typer.Option("--verbose", help="Every number.")] = False,
    as_json: AsJson = False,
) -> None:
    """Test an operator: adjoint, inverse, gradient, and more.

    At even, odd and oblong sizes and on volumes, in float32 and float64. Your own operator is a
    function that takes an image shape (C, H, W) or (C, D, H, W) and returns a deepinv physics; a
    ValueError from it means that it does not take that size.
    """
    import operators
    from restore import findings
    from restore.target import maker

    sizes = None if shape is None else [read_shape(shape)]
    sweep = operators.sweep(maker(target), sizes, seed=seed)
    if sweep.refusal:
        raise ValueError(sweep.refusal)
    if as_json:
        print_json(findings.as_dict(target, sweep))
    else:
        show(findings.show(target, sweep, verbose=verbose))
    if not sweep.ok:
        raise typer.Exit(1)
