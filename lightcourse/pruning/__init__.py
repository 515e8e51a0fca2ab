"""Which weights may go: scores, masks made from scores, and the verbs that apply masks.

Any score combines with any mask. A mask is True where a weight is kept.
"""

from lightcourse.calibration import hessians, input_norms
from lightcourse.pruning.depth import block_influence, remove_layers_
from lightcourse.pruning.experts import drop_experts_, expert_shares
from lightcourse.pruning.masks import global_mask, layer_mask, n_of_m_mask, row_mask
from lightcourse.pruning.saved import load_pruned_, save_pruned
from lightcourse.pruning.scores import magnitude_scores, random_scores, wanda_scores
from lightcourse.pruning.sparsegpt import sparsegpt, sparsegpt_
from lightcourse.pruning.structured import (
    head_scores,
    neuron_scores,
    remove_heads_,
    remove_neurons_,
)
from lightcourse.pruning.taylor import head_taylor, neuron_taylor, taylor_scores
from lightcourse.pruning.tokens import smaller_tokenizer, tokens_of
from lightcourse.pruning.vocabulary import remove_tokens_
from lightcourse.pruning.width import remove_width_, width_scores
from lightcourse.pruning.zeros import gradual_schedule, hold_masks, prune_

__all__ = [
    "block_influence",
    "drop_experts_",
    "expert_shares",
    "global_mask",
    "gradual_schedule",
    "head_scores",
    "head_taylor",
    "hessians",
    "hold_masks",
    "input_norms",
    "layer_mask",
    "load_pruned_",
    "magnitude_scores",
    "n_of_m_mask",
    "neuron_scores",
    "neuron_taylor",
    "prune_",
    "random_scores",
    "remove_heads_",
    "remove_layers_",
    "remove_neurons_",
    "remove_tokens_",
    "remove_width_",
    "row_mask",
    "save_pruned",
    "smaller_tokenizer",
    "sparsegpt",
    "sparsegpt_",
    "taylor_scores",
    "tokens_of",
    "wanda_scores",
    "width_scores",
]
