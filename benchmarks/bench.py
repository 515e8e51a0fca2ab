"""Time the library against what people would otherwise use, as ratios within one run.

Usage: python benchmarks/bench.py [--repeats 30]

Everything is interleaved: one call of each contestant, then the next round, so that a
machine that slows down slows all of them. Prints medians relative to torch in float32
(above 1: slower than that), and the error against float64.
"""

import argparse

import numpy as np
import torch
from torch import nn

from lightcourse import kernels, metrics, quantization, reference

SHAPES = [(384, 1536), (768, 3072)]
ROWS = [1, 32, 128]


def linear_contestants(inputs, outputs, rows) -> tuple[dict, torch.Tensor]:
    """Return functions that multiply the same matrix, and the float64 result."""
    torch.manual_seed(0)
    linear = nn.Linear(inputs, outputs).requires_grad_(False)
    x = torch.randn(rows, inputs)
    half, x_half = nn.Linear(inputs, outputs).requires_grad_(False).bfloat16(), x.bfloat16()
    half.load_state_dict(linear.state_dict())
    eight = quantization.QuantizedLinear(linear.weight, linear.bias, bits=8)
    four = quantization.QuantizedLinear(linear.weight, linear.bias, bits=4, group_size=32)
    wanted = x.double() @ linear.weight.double().T + linear.bias.double()
    return {
        "torch float32": lambda: linear(x),
        "torch bfloat16": lambda: half(x_half),
        "ours, 8 bits": lambda: eight(x),
        "ours, 4 bits": lambda: four(x),
    }, wanted


def bench_linear(repeats):
    """Print one line for each shape, number of rows and contestant."""
    print("linear layers: seconds relative to torch float32, and mean relative error")
    for inputs, outputs in SHAPES:
        for rows in ROWS:
            contestants, wanted = linear_contestants(inputs, outputs, rows)
            times = metrics.latencies(contestants, repeats)
            for name, function in contestants.items():
                error = (function().double() - wanted).abs().mean() / wanted.abs().mean()
                ratio = times[name].median / times["torch float32"].median
                print(f"{inputs} x {outputs}, M={rows:<4} {name:<16} {ratio:6.2f}  {error:.1e}")


def bench_quantize_rows(repeats):
    """Print how the Numba kernel compares with NumPy and torch."""
    print("quantize_rows: seconds relative to NumPy")
    for shape in [(1, 768), (128, 768), (512, 3072)]:
        x = np.random.default_rng(0).standard_normal(shape, np.float32)
        tensor = torch.from_numpy(x)
        contestants = {
            "NumPy": lambda x=x: reference.quantize_rows(x),
            "torch": lambda tensor=tensor: torch_quantize_rows(tensor),
            "Numba": lambda x=x: kernels.quantize_rows(x),
        }
        times = metrics.latencies(contestants, repeats)
        for name, time in times.items():
            ratio = time.median / times["NumPy"].median
            print(f"{shape[0]} x {shape[1]:<5} {name:<6} {ratio:6.2f}")


def torch_quantize_rows(x):
    """Quantize each row with torch, as a user would write it."""
    scale = x.abs().amax(dim=1) / 127
    return (x / scale[:, None]).round().clamp(-127, 127).to(torch.int8), scale


def main():
    """Run both parts on one thread."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=30)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    bench_linear(repeats)
    bench_quantize_rows(repeats)


if __name__ == "__main__":
    main()
