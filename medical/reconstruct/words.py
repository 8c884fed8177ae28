"""A restored scan in a few lines, for a terminal."""

from medical.reconstruct.outcome import Restored


def summary(restored: Restored) -> str:
    """What was done, how well, and what to know about it."""
    story = restored.story
    fit = ", ".join(f"{m:.2f}" for m in story["misfit"])
    lines = [
        f"{restored.mean!r}",
        f"  {story['measured']}; data misfit {fit} (1 = consistent), {story['seconds']:.0f} s",
    ]
    for name, q in restored.quality.items():
        planes = ", ".join(f"{plane} {q.psnr[plane]:.2f} dB" for plane in q.psnr)
        lines.append(f"  {name}: {planes}, step error {q.step:.3g} {restored.mean.units}")
    if restored.std is not None:
        lines.append(f"  mean std {float(restored.std.data.mean()):.3g} {restored.mean.units}")
    lines += [f"  note: {note}" for note in restored.notes]
    if restored.status != "ok":
        lines.append(f"  {restored.status}: {restored.remedy}")
    return "\n".join(lines)
