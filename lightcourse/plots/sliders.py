"""Figures to play with: a slider where JupyterLab shows widgets, else one still picture."""

import os

import torch

from lightcourse.plots.quantization import number_line
from lightcourse.quantization import fake_quantize


def number_line_slider(x, bits: int = 3) -> None:
    """Show numbers and the grid that they are rounded to; sliders move the grid.

    One slider sets the bits, the other how much of the numbers' range the grid covers. The
    title tells the error. Under ``lightcourse lab`` the sliders are shown; elsewhere, as in a
    book or a test, the grid of ``bits`` bits over the full range.

    Parameters
    ----------
    x : sequence of float
        Not all zero.
    bits : int
        2, 3 or 4.
    """
    x = [float(value) for value in x]
    if not any(x):
        raise ValueError("x holds nothing but zeros; a number other than 0 is wanted")
    if bits not in (2, 3, 4):
        raise ValueError(f"bits is {bits!r}; 2, 3 or 4 is wanted")
    if not shows_widgets():
        _draw(x, bits, share=1.0)
        return
    from ipywidgets import FloatSlider, IntSlider, fixed, interact

    share = FloatSlider(1.0, min=0.4, max=1.0, step=0.05, description="range")
    interact(_draw, x=fixed(x), bits=IntSlider(bits, min=2, max=4), share=share)


def shows_widgets() -> bool:
    """Tell whether the notebook is read where sliders work: ``lightcourse lab`` says so."""
    return os.environ.get("LIGHTCOURSE_WIDGETS") == "1"


def _draw(x, bits, share):
    import matplotlib.pyplot as plt

    values, quant_max = torch.tensor(x, dtype=torch.float64), 2 ** (bits - 1) - 1
    end = share * values.abs().max()
    scale = end / quant_max
    ax = number_line(x, float(f"{scale:.3g}"), 0, -quant_max, quant_max)
    kept = fake_quantize(values.clamp(-end, end), scale, torch.tensor(0), bits)
    error = (kept - values).square().sum() / values.square().sum()
    ax.set_title(f"{bits} bits, {share:.0%} of the range: squared error {error:.1%}")
    plt.show()
