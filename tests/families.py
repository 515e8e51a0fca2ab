"""Tiny models of many families, at random, and what to feed them: for the table of families."""

import torch
import transformers as hf
from torch import nn

VOCABULARY = 96
WORDS = {"vocab_size": VOCABULARY, "max_position_embeddings": 32}
DECODER = WORDS | {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = DECODER | {"num_key_value_heads": 2}
EXPERTS = GROUPED | {"num_experts_per_tok": 2}
TWO_STACKS = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
PICTURES = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 8,
}


def words(length=8):
    """Return token ids of shape (2, length) and their mask."""
    ids = torch.arange(3, 3 + 2 * length).view(2, length)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def with_answer(inputs):
    """Return inputs of an encoder with those of a decoder."""
    return inputs | {"decoder_input_ids": torch.arange(1, 9).view(2, 4)}


def pictures():
    """Return two pictures of 16 x 16."""
    return {"pixel_values": torch.linspace(-1, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16)}


def sounds():
    """Return two spectrograms of 40 frames."""
    return {"input_features": torch.linspace(-1, 1, 2 * 80 * 40).view(2, 80, 40)}


class TorchEncoder(nn.Module):
    """torch's own encoder layers, with their fast path in evaluation mode."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.table = nn.Embedding(VOCABULARY, 32)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.head = nn.Linear(32, VOCABULARY)

    def forward(self, input_ids, attention_mask=None):
        """Return logits of shape (batch, length, words)."""
        return self.head(self.encoder(self.table(input_ids)))


def bert():
    """BERT as a classifier."""
    return hf.BertForSequenceClassification(hf.BertConfig(**DECODER)), words()


def distilbert():
    """DistilBERT that fills masks; its output layer is tied."""
    config = hf.DistilBertConfig(**WORDS, dim=32, hidden_dim=64, n_layers=2, n_heads=4)
    return hf.DistilBertForMaskedLM(config), words()


def gpt2():
    """GPT-2: transposed layers."""
    config = hf.GPT2Config(
        **{"vocab_size": VOCABULARY, "n_positions": 32, "n_embd": 32, "n_layer": 2, "n_head": 4},
        **{"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
    )
    return hf.GPT2LMHeadModel(config), words()


def gpt_neox():
    """GPT-NeoX: queries, keys and values in one matrix."""
    return hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**DECODER)), words()


def falcon():
    """Falcon: fused, with one key for all heads, and a linear class of its own."""
    config = hf.FalconConfig(
        **{"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2},
        **{"num_attention_heads": 4, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0},
    )
    return hf.FalconForCausalLM(config), words()


def llama():
    """Llama: grouped-query attention, gated feed-forward."""
    return hf.LlamaForCausalLM(hf.LlamaConfig(**GROUPED)), words()


def qwen2():
    """Qwen2: a Llama with biases, and a tied output layer."""
    return hf.Qwen2ForCausalLM(hf.Qwen2Config(**GROUPED, tie_word_embeddings=True)), words()


def qwen2_moe():
    """Qwen2-MoE: experts and one that is always asked."""
    config = hf.Qwen2MoeConfig(
        **EXPERTS, num_experts=4, moe_intermediate_size=32, shared_expert_intermediate_size=32
    )
    return hf.Qwen2MoeForCausalLM(config), words()


def mixtral():
    """Mixtral: four experts a layer."""
    return hf.MixtralForCausalLM(hf.MixtralConfig(**EXPERTS, num_local_experts=4)), words()


def t5():
    """T5: encoder and decoder, no biases."""
    config = hf.T5Config(
        **{"vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2},
        **{"num_heads": 4, "decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 2},
    )
    return hf.T5ForConditionalGeneration(config), with_answer(words())


def bart():
    """BART: encoder and decoder with shared tables."""
    config = hf.BartConfig(**WORDS, **TWO_STACKS, forced_eos_token_id=None)
    return hf.BartForConditionalGeneration(config), with_answer(words())


def whisper():
    """Whisper: sounds to words."""
    config = hf.WhisperConfig(
        **TWO_STACKS, vocab_size=VOCABULARY, max_source_positions=20, max_target_positions=32
    )
    return hf.WhisperForConditionalGeneration(config), with_answer(sounds())


def vit():
    """ViT as a classifier."""
    return hf.ViTForImageClassification(hf.ViTConfig(**PICTURES)), pictures()


def clip():
    """CLIP: a tower for pictures and one for words."""
    text = DECODER | {"projection_dim": 32}
    config = hf.CLIPConfig(text_config=text, vision_config=PICTURES, projection_dim=32)
    return hf.CLIPModel(config), words() | pictures()


def mamba():
    """Mamba: a state instead of attention."""
    config = hf.MambaConfig(
        **{"vocab_size": VOCABULARY, "hidden_size": 32, "state_size": 4, "num_hidden_layers": 2},
        **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    )
    return hf.MambaForCausalLM(config), words()


def torch_encoder():
    """torch's own TransformerEncoder."""
    return TorchEncoder(), words()


FAMILIES = {
    "BERT": bert,
    "DistilBERT": distilbert,
    "GPT-2": gpt2,
    "GPT-NeoX": gpt_neox,
    "Falcon": falcon,
    "Llama": llama,
    "Qwen2": qwen2,
    "Qwen2-MoE": qwen2_moe,
    "Mixtral": mixtral,
    "T5": t5,
    "BART": bart,
    "Whisper": whisper,
    "ViT": vit,
    "CLIP": clip,
    "Mamba": mamba,
    "nn.TransformerEncoder": torch_encoder,
}


def make(family: str):
    """Return a family's model in evaluation mode, always the same one, and its inputs."""
    torch.manual_seed(0)
    model, inputs = FAMILIES[family]()
    return model.eval(), inputs


def answer(model, inputs) -> torch.Tensor:
    """Return what a model answers: its first output of floats."""
    with torch.no_grad():
        found = model(**inputs)
    if isinstance(found, torch.Tensor):
        return found
    values = found.values() if hasattr(found, "values") else found
    return next(v for v in values if isinstance(v, torch.Tensor) and v.is_floating_point())
