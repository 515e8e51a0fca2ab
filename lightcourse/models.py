"""The models of the course: our own tiny language models and two real ones."""

from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from lightcourse import asking, assets, files, layers

BUNDLED = Path(__file__).parent / "bundled"
TINY_SHAPES = {
    "teacher": {"hidden_size": 256, "intermediate_size": 640, "num_hidden_layers": 5},
    "student": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4},
    "gpt2": {"hidden_size": 128, "num_hidden_layers": 4},
    "moe": {"hidden_size": 128, "intermediate_size": 96, "num_hidden_layers": 4},
}
EMBEDDINGS = {
    "llama": "model.embed_tokens.weight",
    "gpt2": "transformer.wte.weight",
    "mixtral": "model.embed_tokens.weight",
}


def load_tiny_tokenizer():
    """Return the byte-level BPE tokenizer (2,048 tokens) of the tiny language models."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_file=str(BUNDLED / "tiny-lm" / "tokenizer.json"),
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
    )


def new_tiny_lm(size: str = "teacher") -> nn.Module:
    """Return an untrained tiny language model.

    Parameters
    ----------
    size : str
        ``"teacher"`` (a Llama of 4.3M parameters), ``"student"`` (a Llama of 1.1M),
        ``"gpt2"`` (a GPT-2 of 1.1M, whose linear layers are ``Conv1D``) or ``"moe"`` (a
        Mixtral of 1.7M: 8 experts in each layer, of which a token visits 2).

    Raises
    ------
    ValueError
        When there is no such size.
    """
    if size not in TINY_SHAPES:
        raise ValueError(f"size is {size!r}; one of {sorted(TINY_SHAPES)} is wanted")
    shape = {"vocab_size": 2048, "max_position_embeddings": 512, "num_attention_heads": 4}
    shape |= {"bos_token_id": 0, "eos_token_id": 0, **TINY_SHAPES[size]}
    return {"gpt2": _new_gpt2, "moe": _new_mixtral}.get(size, _new_llama)(shape)


def _new_llama(shape):
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(tie_word_embeddings=True, pad_token_id=0, **shape))


def _new_gpt2(shape):
    from transformers import GPT2Config, GPT2LMHeadModel

    # Without dropout, as the Llamas: so small a model does not learn its corpus by heart.
    return GPT2LMHeadModel(GPT2Config(resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, **shape))


def _new_mixtral(shape):
    from transformers import MixtralConfig, MixtralForCausalLM

    experts = {"num_local_experts": 8, "num_experts_per_tok": 2, "num_key_value_heads": 4}
    ties = {"tie_word_embeddings": True, "pad_token_id": 0}
    # In training the loss asks for the router's logits, to keep the experts evenly loaded.
    return MixtralForCausalLM(MixtralConfig(router_aux_loss_coef=0.02, **ties, **experts, **shape))


def load_tiny_lm(size: str = "teacher") -> nn.Module:
    """Return a tiny language model that was trained on the State of the Union speeches.

    Parameters
    ----------
    size : str
        ``"teacher"``, ``"student"``, ``"gpt2"`` or ``"moe"``, as in :func:`new_tiny_lm`.

    Returns
    -------
    transformers.LlamaForCausalLM, GPT2LMHeadModel or MixtralForCausalLM
        In float32 and evaluation mode. The file holds float16.
    """
    model = new_tiny_lm(size)
    tensors, _ = files.load_tensors(BUNDLED / "tiny-lm" / f"{size}.safetensors")
    # The output layer is the embedding table; the file holds that table once.
    tensors["lm_head.weight"] = tensors[EMBEDDINGS[model.config.model_type]]
    model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    return model.eval()


def load_minilm() -> nn.Module:
    """Return the encoder all-MiniLM-L6-v2: BERT with 6 layers of width 384.

    A distilled encoder (MiniLM, Wang et al. 2020, arXiv 2002.10957), tuned on a billion
    sentence pairs. The pooler in the file is left out: the model was tuned with the mean
    over its outputs, and a layer that never runs would falsify every count.

    Returns
    -------
    transformers.BertModel
        22.6M parameters, float32, evaluation mode.

    Raises
    ------
    lightcourse.assets.AssetMissing
        When it was not fetched yet.
    """
    from transformers import BertConfig, BertModel

    folder = assets.path("minilm")
    tensors, _ = files.load_tensors(folder / "model.safetensors")
    unused = ("pooler.", "embeddings.position_ids")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(unused)}
    model = BertModel(BertConfig.from_pretrained(folder), add_pooling_layer=False)
    model.load_state_dict(kept)
    return model.eval()


def load_minilm_tokenizer():
    """Return MiniLM's tokenizer: WordPiece, 30,522 tokens, lower case, 512 tokens at most."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(assets.path("minilm"))


def factbook_adapter() -> Path:
    """Return the folder of the LoRA that makes MiniLM tell 13 sections of the World Factbook.

    It comes with the course, its data sheet beside it. ``lora.load_lora_`` reads it into
    ``EncoderClassifier(load_minilm(), num_labels=13)``; the classes are those of
    ``data.load_factbook("section")``.
    """
    return BUNDLED / "factbook-teacher"


def load_smollm2(dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return the decoder SmolLM2-135M-Instruct (Allal et al. 2025, arXiv 2502.02737).

    **Its weights were rounded before we got them**: those of all linear layers to 4 bits
    (GGUF, Q4_1: 16 levels for each group of 32), the embedding table to 8. So weight
    quantization looks better here than it is: what it could lose is lost already. Claims
    about weight quantization are made on the tiny models; this one serves for speed,
    memory, generation and pruning.

    The first call unpacks the 4-bit file, which takes half a minute, and keeps the result
    as bfloat16 (269 MB) in the cache; later calls take a few seconds.

    Parameters
    ----------
    dtype : torch.dtype
        Of the weights, for instance ``torch.bfloat16`` to halve the memory.

    Returns
    -------
    transformers.LlamaForCausalLM
        134.5M parameters, evaluation mode.

    Raises
    ------
    lightcourse.assets.AssetMissing
        When it was not fetched yet.
    """
    from transformers import LlamaForCausalLM

    folder = assets.derive("smollm2-bf16", _unpack_smollm2)
    with _no_progress_bars():
        return LlamaForCausalLM.from_pretrained(folder, dtype=dtype).eval()


def load_smollm2_tokenizer():
    """Return SmolLM2's tokenizer: byte-level BPE, 49,152 tokens, with a chat template."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(assets.derive("smollm2-bf16", _unpack_smollm2))


def _unpack_smollm2(folder):
    """Write SmolLM2 as bfloat16 safetensors, with configuration and tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    source = assets.path("smollm2")
    (file,) = source.glob("*.gguf")
    with _no_progress_bars():
        model = LlamaForCausalLM.from_pretrained(source, gguf_file=file.name)
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=file.name)
    # The model still calls itself a GGUF one, and would refuse to be saved or halved.
    settings = model.config.to_dict() | {"dtype": "bfloat16"}
    settings.pop("quantization_config")
    LlamaConfig(**settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    tensors = {name: tensor.bfloat16() for name, tensor in model.state_dict().items()}
    del tensors["lm_head.weight"]  # it is the embedding table
    files.save_tensors(tensors, folder / "model.safetensors", {"format": "pt"})


@contextmanager
def _no_progress_bars():
    from transformers.utils import logging

    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


@torch.no_grad()
def embed(encoder: nn.Module, batches: Iterable[dict]) -> torch.Tensor:
    """Return an encoder's mean output over the real tokens of each text, in evaluation mode.

    Parameters
    ----------
    encoder : nn.Module
        Any Hugging Face model that returns ``last_hidden_state``, such as
        :func:`load_minilm`'s. Its training mode is restored afterwards.
    batches : iterable of dict
        Keyword arguments for the encoder, ``attention_mask`` among them; ``labels`` are left
        out. For instance ``data.ordered_batches(…)``.

    Returns
    -------
    Tensor of shape (texts, hidden_size)

    Raises
    ------
    ValueError
        When there is no batch, one is no dict or has no ``attention_mask``, or the model is no
        encoder.
    """
    with layers.evaluating(encoder):
        found = [mean_output(encoder, inputs) for inputs in asking.inputs_of_each(batches)]
    return torch.cat(found)


def mean_output(encoder: nn.Module, inputs: dict) -> torch.Tensor:
    """Return the mean output over the real tokens of one batch, as :func:`embed` does."""
    if "attention_mask" not in inputs:
        raise ValueError(f"a batch has only {sorted(inputs)}; attention_mask is wanted too")
    hidden = getattr(encoder(**inputs), "last_hidden_state", None)
    if hidden is None:
        raise ValueError(
            f"encoder is a {type(encoder).__name__}, which returns no last_hidden_state; a model "
            "without a head, such as load_minilm(), is wanted"
        )
    weights = inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)


class EncoderClassifier(nn.Module):
    """An encoder, the mean over its outputs, and one linear layer.

    Parameters
    ----------
    encoder : nn.Module
        Any Hugging Face model that returns ``last_hidden_state``.
    num_labels : int
        Number of classes, at least 2.
    """

    def __init__(self, encoder: nn.Module, num_labels: int):
        super().__init__()
        if num_labels < 2:
            raise ValueError(f"num_labels is {num_labels}; at least 2 is wanted")
        self.config = encoder.config
        self.encoder = encoder
        self.head = nn.Linear(encoder.config.hidden_size, num_labels)

    def embed(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the mean output over the real tokens, shape (batch, hidden_size)."""
        inputs = {"input_ids": input_ids, "attention_mask": attention_mask}
        return mean_output(self.encoder, inputs)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        labels: torch.Tensor | None = None,
    ):
        """Return logits of shape (batch, num_labels), and the mean cross-entropy with labels.

        Parameters
        ----------
        input_ids, attention_mask : torch.Tensor
            int64 of shape (batch, length); the mask is 1 for real tokens, 0 for padding.
        labels : torch.Tensor, optional
            int64 of shape (batch,).

        Returns
        -------
        transformers.modeling_outputs.SequenceClassifierOutput
            With ``logits``, and with ``loss`` where labels were given.

        Raises
        ------
        ValueError
            When a label is none of the classes.
        """
        from transformers.modeling_outputs import SequenceClassifierOutput

        logits = self.head(self.embed(input_ids, attention_mask))
        if labels is None:
            return SequenceClassifierOutput(logits=logits)
        check_labels(labels, logits.shape[-1])
        return SequenceClassifierOutput(loss=F.cross_entropy(logits, labels), logits=logits)


def check_labels(labels: torch.Tensor, num_labels: int) -> None:
    """Raise ``ValueError`` when a label is none of the classes 0 .. ``num_labels`` - 1."""
    if labels.is_floating_point():
        raise ValueError(f"labels is {labels.dtype}; whole numbers, torch.int64, are wanted")
    outside = labels[(labels < 0) | (labels >= num_labels)]
    if len(outside):
        raise ValueError(f"labels holds {int(outside[0])}; 0..{num_labels - 1} is wanted")
