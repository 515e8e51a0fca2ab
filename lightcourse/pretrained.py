"""A changed model and transformers' ``save_pretrained``: told apart, or refused.

A model that was quantized, carries a LoRA or lost some heads is another one than its
configuration describes. ``save_pretrained`` would write it without a word, and
``from_pretrained`` fill what does not fit with random numbers.
"""

import sys

from torch import nn


def watch_(model: nn.Module) -> None:
    """Let ``save_pretrained`` of a changed model, and of those inside it, ask us first.

    transformers asks a model's quantizer before it writes anything; ours is
    :mod:`lightcourse.quantization.pretrained`. It then writes what ``from_pretrained`` can
    read, or raises ``ValueError``. Plain torch modules have no such door, and need none.
    """
    if "transformers.modeling_utils" not in sys.modules:
        return  # then nothing in the model is one of transformers'
    from transformers import PreTrainedModel
    from transformers.quantizers import AutoHfQuantizer

    for module in model.modules():
        if isinstance(module, PreTrainedModel) and getattr(module, "hf_quantizer", None) is None:
            module.hf_quantizer = AutoHfQuantizer.from_config({"quant_method": "lightcourse"})
