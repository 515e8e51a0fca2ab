"""The LoRA family: train a little beside a frozen model, and keep many such adapters on one.

LoRA (Hu et al. 2021, arXiv 2106.09685), DoRA (2402.09353), IA3 (2205.05638), prompt tuning
(2104.08691), biases alone (2106.10199).
"""

from lightcourse.lora.adding import add_dora_, add_ia3_, add_lora_
from lightcourse.lora.biases import load_biases_, save_biases, train_biases_
from lightcourse.lora.counting import Counts, counts
from lightcourse.lora.dora import DoRALinear
from lightcourse.lora.ia3 import IA3Linear
from lightcourse.lora.layer import LoRALinear, rank_stabilized_alpha
from lightcourse.lora.merging import merge_drift, merge_lora_
from lightcourse.lora.prompt import PromptTuned, load_prompt, save_prompt
from lightcourse.lora.saved import load_lora_, save_lora, unmerge_lora_
from lightcourse.lora.switching import adapter_rows, adapters, set_adapter_

__all__ = [
    "Counts",
    "DoRALinear",
    "IA3Linear",
    "LoRALinear",
    "PromptTuned",
    "adapter_rows",
    "adapters",
    "add_dora_",
    "add_ia3_",
    "add_lora_",
    "counts",
    "load_biases_",
    "load_lora_",
    "load_prompt",
    "merge_drift",
    "merge_lora_",
    "rank_stabilized_alpha",
    "save_biases",
    "save_lora",
    "save_prompt",
    "set_adapter_",
    "train_biases_",
    "unmerge_lora_",
]
