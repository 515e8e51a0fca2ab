"""Small models of several families, random and quick, for tests."""

import copy

import torch
import transformers
from torch import nn

from lightcourse import models


def bert(labels: int = 3):
    """Return a two-layer BERT classifier of width 16."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=50,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        hidden_dropout_prob=0.1,
    )
    encoder = transformers.BertModel(config, add_pooling_layer=False)
    return models.EncoderClassifier(encoder, labels).eval()


def gpt2():
    """Return a two-layer GPT-2: its linear layers are ``Conv1D``."""
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=50,
        n_positions=32,
        n_embd=16,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    return transformers.GPT2LMHeadModel(config).eval()


def llama():
    """Return a three-layer Llama with tied embeddings."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=50,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=3,
        num_attention_heads=2,
        max_position_embeddings=32,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    return transformers.LlamaForCausalLM(config).eval()


def mlp():
    """Return two linear layers of plain torch, 8 -> 12 -> 4."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 4))


ALL = {"bert": bert, "gpt2": gpt2, "llama": llama}


def logits(model):
    """Return a toy model's logits on one fixed batch."""
    ids = torch.arange(1, 17).view(2, 8)
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


def reloaded(model, folder):
    """Return a toy model as ``save_pretrained`` and ``from_pretrained`` give it back."""
    if hasattr(model, "encoder"):  # our classifier around a BERT: that is what is saved
        again = copy.deepcopy(model)
        model.encoder.save_pretrained(folder)
        again.encoder = type(model.encoder).from_pretrained(folder, add_pooling_layer=False)
        return again
    model.save_pretrained(folder)
    return type(model).from_pretrained(folder)


def written(model, ids):
    """Return what a causal model writes, with a cache of keys and values and without."""
    settings = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    return [model.generate(ids, **settings, use_cache=cache) for cache in (True, False)]


def correlated(seed, outputs=5, inputs=8, tokens=40):
    """Return a weight, and inputs that are correlated, both in float64."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(inputs, inputs, generator=generator, dtype=torch.double) / inputs**0.5
    x = torch.randn(tokens, inputs, generator=generator, dtype=torch.double)
    return torch.randn(outputs, inputs, generator=generator, dtype=torch.double), x + 0.6 * x @ mix
