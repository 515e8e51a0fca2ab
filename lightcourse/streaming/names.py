"""What a checkpoint's tensors are called in the model: transformers' own rules for loading."""

from collections.abc import Iterable

from torch import nn


def names_in_model(model: nn.Module, stored: Iterable[str]) -> dict[str, str]:
    """Return for the checkpoint's names the model's, of tensors that become one as they are.

    A checkpoint of GPT-NeoX calls ``embed_out`` what the model calls ``lm_head``, older ones lack
    the prefix of a model below a head; experts that transformers stacks have no name here.

    Parameters
    ----------
    model : PreTrainedModel
        On ``meta`` as well.
    stored : iterable of str

    Returns
    -------
    dict of str to str
    """
    from transformers import conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    rules = conversion_mapping.get_model_conversion_mapping(model)
    renaming = [rule for rule in rules if isinstance(rule, WeightRenaming)]
    converting = [rule for rule in rules if isinstance(rule, WeightConverter)]
    place, found = (model.base_model_prefix, model.state_dict()), {}
    for name in sorted(stored):
        new, converted = rename_source_key(name, renaming, converting, *place)
        if new not in place[1] and name in place[1]:
            new, converted = rename_source_key(name, [], [], *place)
        if new in place[1] and converted is None:
            found[name] = new
    return found
