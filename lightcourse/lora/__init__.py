"""Low-rank adaptation: train two thin matrices beside a frozen one.

Hu et al. 2021, arXiv 2106.09685.
"""

from lightcourse.lora.layer import LoRALinear
from lightcourse.lora.saved import load_lora_, save_lora, unmerge_lora_
from lightcourse.lora.verbs import adapters, add_lora_, merge_lora_, set_adapter_

__all__ = [
    "LoRALinear",
    "adapters",
    "add_lora_",
    "load_lora_",
    "merge_lora_",
    "save_lora",
    "unmerge_lora_",
    "set_adapter_",
]
