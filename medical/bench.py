"""`restore bench volumes`: reconstructions of a head from few views, beside the classical ones."""

from typing import Annotated

import typer


def volumes(
    task: Annotated[
        str, typer.Option(metavar="SPEC", help="What a slice is measured by.")
    ] = "ct:angles=8",
    noise: Annotated[float, typer.Option(help="Std, where bone is 1 and a ray sums to 2.")] = 0.004,
    slices: Annotated[int, typer.Option(min=2, help="Of the head, around the middle.")] = 64,
    prior: Annotated[str, typer.Option(help="Of slices: name or safetensors file.")] = "ct",
    method: Annotated[
        list[str] | None, typer.Option(help="Repeat for several; by default all.")
    ] = None,
    mbir_steps: Annotated[
        int, typer.Option(min=2, help="Noise levels of DiffusionMBIR; its paper has 2000.")
    ] = 2000,
    reduce: Annotated[int, typer.Option(min=1, help="Average so many pixels a side.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Numbers as JSON.")] = False,
) -> None:
    """A CT head from few views: DDS, DiffusionMBIR, total variation, FBP.

    The head is the real one of `restore demo volume`, where it is installed, else a phantom. No
    part of it was seen in training.
    """
    from torch.nn import functional as F

    import priors
    from medical import intensity, phantoms, samples
    from restore.bench import volumes as bench
    from restore.console import print_json, say, show
    from restore.solvers.diffusion_mbir import DiffusionMBIR

    real = samples.ct_head()
    head = real or phantoms.head((256, 256, 108), modality="CT")
    stack = head.stack()
    first = max(0, (stack.grid[0] - slices) // 2)
    x = intensity.ct().forward(stack.data[None, :, first : first + slices])
    x = F.avg_pool3d(x, (1, reduce, reduce)).clamp(0, 1)
    side = float(stack.spacing[2]) * reduce
    scan = bench.measure(x, task, noise=noise, spacing=float(stack.spacing[0]) / side)
    rows = []
    for row in bench.run(
        scan, priors.load(prior), methods=method, mbir=DiffusionMBIR(steps=mbir_steps)
    ):
        rows.append(row)
        say(f"{row.method}: {row.seconds:.0f} s", to_stderr=True)
    if as_json:
        print_json([row.as_dict() for row in rows])
        return
    size = "x".join(map(str, x.shape[2:]))
    show(bench.table(rows, f"{'a real CT head' if real else 'a phantom'}, {size}, {task}"))
