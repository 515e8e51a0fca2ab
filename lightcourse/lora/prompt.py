"""Prompt tuning: vectors before the text are trained, and nothing in the model."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from lightcourse import files, layers
from lightcourse.checkpoints import another_model
from lightcourse.lora import peft_format
from lightcourse.lora.peft_format import CONFIG, WEIGHTS
from lightcourse.lora.prompt_session import PromptSession

KEY = "prompt_embeddings"
# They would have to tell about the prompt's positions, too.
UNKNOWN = ("position_ids", "past_key_values", "inputs_embeds", "cache_position")


class PromptTuned(nn.Module):
    """A frozen model, and trained vectors that stand before every text (Lester et al. 2021).

    arXiv 2104.08691. The model is held, not copied: several prompts for one model are several
    of these around it. The prompt's own places are cut off the answers, which are as long as
    the text. It takes places from the text, and time in every call.

    Parameters
    ----------
    model : nn.Module
        A decoder or an encoder of transformers, with one table of input embeddings; it is
        frozen. An encoder's prompt goes inside a classifier:
        ``EncoderClassifier(PromptTuned(encoder), num_labels=2)``.
    tokens : int or sequence of int
        How many vectors, which begin as those of tokens drawn at random; or the ids of the
        tokens to begin with.

    Attributes
    ----------
    prompt : Parameter of shape (tokens, hidden)
        float32.

    Raises
    ------
    ValueError
        When ``model`` has no such table or two stacks (T5), or ``tokens`` is below 1, empty or
        outside of the vocabulary.
    """

    def __init__(self, model: nn.Module, tokens: int | Sequence[int] = 8):
        super().__init__()
        inner = layers.inside(model)
        self.config = getattr(inner, "config", None)
        if not hasattr(inner, "get_input_embeddings") or self.config is None:
            kind = type(inner).__name__
            raise ValueError(f"model is a {kind}; a model of transformers is wanted")
        if getattr(self.config, "is_encoder_decoder", False):
            raise ValueError(f"model is a {type(inner).__name__} of two stacks; one is wanted")
        ids = _checked_ids(tokens, self.config.vocab_size)
        self.model = model.requires_grad_(False)
        table = inner.get_input_embeddings()
        device = next(model.parameters()).device
        self.prompt = nn.Parameter(table(ids.to(device)).detach().float().clone())
        self.train(model.training)

    def forward(self, input_ids, attention_mask=None, labels=None, **more):
        """Return the model's answer, of the text's places alone.

        Parameters
        ----------
        input_ids, attention_mask : Tensor of shape (batch, length)
        labels : Tensor, optional
            Of shape (batch, length) for a decoder: none is asked of the prompt's places.
        **more
            Handed on. Beside ``token_type_ids`` the prompt counts as the first text.
            ``hidden_states`` and ``attentions`` in the answer keep the prompt's places.

        Raises
        ------
        ValueError
            When the text is too long, or an argument is given that tells about positions.
        """
        if given := [name for name in UNKNOWN if more.get(name) is not None]:
            raise ValueError(f"{given[0]} is given; a prompt makes its own positions")
        self._check_length(input_ids)
        own = {"attention_mask": attention_mask, "token_type_ids": more.pop("token_type_ids", None)}
        fill = {"attention_mask": 1, "token_type_ids": 0}
        more |= {n: self._longer(t, fill[n]) for n, t in own.items() if t is not None}
        if labels is not None:
            more["labels"] = self._longer(labels, -100) if labels.ndim == 2 else labels
        texts = layers.unwrapped(self.model).get_input_embeddings()(input_ids)
        prompt = self.prompt.to(texts.dtype).expand(len(texts), -1, -1)
        return self._cut(self.model(inputs_embeds=torch.cat([prompt, texts], dim=1), **more))

    def begin(self, mask: torch.Tensor | None = None) -> PromptSession:
        """Return a session behind the prompt: so :mod:`lightcourse.generation` writes with it."""
        return PromptSession(layers.unwrapped(self.model), self.prompt.detach(), mask)

    @property
    def window(self) -> float:
        """How many tokens of text the model sees at once."""
        return getattr(self.config, "max_position_embeddings", math.inf) - len(self.prompt)

    @property
    def vocabulary(self) -> int:
        """How many tokens the model knows."""
        return self.config.vocab_size

    def _check_length(self, input_ids):
        if input_ids.shape[1] > self.window:
            raise ValueError(
                f"input_ids has {input_ids.shape[1]} tokens; at most {self.window} are wanted, "
                f"beside a prompt of {len(self.prompt)}"
            )

    def _longer(self, tensor, value):
        """Return a tensor with places for the prompt before it."""
        return torch.cat([tensor.new_full((len(tensor), len(self.prompt)), value), tensor], dim=1)

    def _cut(self, output):
        """Take the prompt's places off an answer."""
        for name in ("logits", "last_hidden_state"):
            if getattr(output, name, None) is not None and output[name].ndim == 3:
                output[name] = output[name][:, len(self.prompt) :]
        return output

    def extra_repr(self):
        """Describe the prompt the way torch prints it."""
        return f"tokens={len(self.prompt)}"


def _checked_ids(tokens, vocabulary):
    """Return the ids of the tokens that a prompt begins as."""
    if isinstance(tokens, int):
        if tokens < 1:
            raise ValueError(f"tokens is {tokens}; at least 1 is wanted")
        return torch.randint(vocabulary, (tokens,))
    ids = torch.as_tensor(tokens)
    if ids.ndim != 1 or not len(ids) or ids.is_floating_point():
        raise ValueError(f"tokens is {tokens}; a number or a sequence of token ids is wanted")
    if ids.min() < 0 or ids.max() >= vocabulary:
        raise ValueError(f"tokens is {tokens}; ids within 0..{vocabulary - 1} are wanted")
    return ids


def save_prompt(model: PromptTuned, path: str | os.PathLike) -> Path:
    """Write a prompt as peft does; ``peft.PeftModel.from_pretrained`` reads it.

    Parameters
    ----------
    model : PromptTuned
        Around the model alone, not a classifier's head: a classifier's ``encoder``.
    path : path
        A folder, made where it is missing.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ValueError
        When ``model`` is no PromptTuned or its prompt holds NaN, or ``path`` is a file.
    """
    folder = files.checked_folder(path)
    if not isinstance(model, PromptTuned):
        raise ValueError(f"model is a {type(model).__name__}; a PromptTuned is wanted")
    files.check_finite({"its prompt": model.prompt}, "model")
    return peft_format.write_files(folder, _config(model), {KEY: model.prompt.cpu()})


def _config(model):
    speaks = layers.unwrapped(model.model).get_output_embeddings() is not None
    length, width = model.prompt.shape
    return {
        "peft_type": "PROMPT_TUNING",
        "task_type": "CAUSAL_LM" if speaks else "FEATURE_EXTRACTION",
        "num_virtual_tokens": length,
        "token_dim": width,
        "num_transformer_submodules": 1,
        "num_attention_heads": model.config.num_attention_heads,
        "num_layers": model.config.num_hidden_layers,
        "prompt_tuning_init": "RANDOM",
        "inference_mode": True,
        "base_model_name_or_path": None,
    }


@torch.no_grad()
def load_prompt(model: nn.Module, path: str | os.PathLike) -> PromptTuned:
    """Return a model with a prompt before it that :func:`save_prompt` or peft wrote.

    Parameters
    ----------
    model : nn.Module
        As for :class:`PromptTuned`, which holds it.
    path : path
        A folder in peft's format.

    Raises
    ------
    ValueError
        When there is no prompt, or one of another width, or it holds NaN; and as
        :class:`PromptTuned`.
    """
    files.check_is_path("path", path, "a folder")
    folder = Path(path)
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise ValueError(f"{path} holds no prompt; a folder with {CONFIG} and {WEIGHTS} is wanted")
    kind = json.loads((folder / CONFIG).read_text(encoding="utf-8")).get("peft_type")
    tensors, _ = files.load_tensors(folder / WEIGHTS)
    if kind != "PROMPT_TUNING" or KEY not in tensors:
        raise ValueError(f"{path} wants peft_type={kind!r}; PROMPT_TUNING is wanted")
    prompt = tensors[KEY].float()
    files.check_finite({"its prompt": prompt}, path)
    width = model.get_input_embeddings()(torch.zeros(1, dtype=torch.long)).shape[-1]
    if prompt.ndim != 2 or prompt.shape[1] != width:
        why = f"its vectors are {tuple(prompt.shape)}, (any, {width}) is wanted"
        raise another_model(path, why)
    tuned = PromptTuned(model, len(prompt))
    tuned.prompt.copy_(prompt)
    return tuned
