"""Integers that another algorithm found run through quantize_: here GPTQ, in ten lines of NumPy."""

import copy

import numpy as np
import torch

from lightcourse import calibration, data, layers, metrics, models, quantization

BITS = 3


def gptq(weight, hessian, scale):
    """Round column by column; what a column loses, the columns to its right make up for.

    Algorithm 1 of Frantar et al. 2022, arXiv 2210.17323, without blocks.
    """
    quant_min, quant_max = quantization.quant_range(BITS)
    damped = hessian + 0.01 * np.diag(hessian).mean() * np.eye(len(hessian))
    factor = np.linalg.cholesky(np.linalg.inv(damped)).T
    weight, q = weight.copy(), np.zeros(weight.shape, np.int8)
    for j in range(weight.shape[1]):
        q[:, j] = np.clip(np.round(weight[:, j] / scale), quant_min, quant_max)
        lost = (weight[:, j] - q[:, j] * scale) / factor[j, j]
        weight[:, j:] -= np.outer(lost, factor[j, j:])
    return q


def test_gptqs_integers_go_into_a_model_and_read_better_than_the_nearest():
    model, (learn, judge) = models.load_tiny_lm("student"), texts()
    measured = calibration.hessians(model, [{"input_ids": learn}])
    by_gptq, nearest = {}, {}
    for name, hessian in measured.items():
        weight = layers.weight_matrix(model.get_submodule(name)).detach()
        nearest[name] = quantization.round_to_nearest(weight, BITS)
        _, scale, _ = nearest[name]
        numbers = weight.double().numpy(), hessian.double().numpy(), scale.double().numpy()[:, 0]
        by_gptq[name] = torch.from_numpy(gptq(*numbers)), scale, None
    found = {}
    for way, integers in {"gptq": by_gptq, "nearest": nearest}.items():
        small = copy.deepcopy(model)
        report = quantization.quantize_(small, dict.fromkeys(integers, BITS), integers=integers)
        assert report.changed.keys() == integers.keys()
        name = next(iter(integers))
        assert torch.equal(small.get_submodule(name).integers(), integers[name][0])
        found[way] = metrics.perplexity(small, judge, window=128)
    plain = metrics.perplexity(model, judge, window=128)
    # Of what rounding to the nearest on the same grid costs, a quarter: half of that is asked.
    assert plain < found["gptq"] < found["nearest"] - (found["nearest"] - plain) / 8


def texts():
    """Return token ids to calibrate with, in rows, and others to judge by."""
    tokenizer = models.load_tiny_tokenizer()
    learn = data.speech_tokens(tokenizer, "train")[: 32 * 128].view(32, 128)
    return learn, data.speech_tokens(tokenizer, "validation")[: 16 * 128]
