"""What a causal language model writes, token by token, with its cache of keys and values.

Not ``model.generate`` of transformers: what stands in ``model.generation_config``, such as a
penalty for repetition or an end token, would change the text unseen, and its dice are torch's
global ones.
"""

from lightcourse.generation.choosing import certain, drawn, likeliest, probabilities, sampled
from lightcourse.generation.drafts import ModelDraft, prompt_lookup
from lightcourse.generation.foretelling import surprise
from lightcourse.generation.jitted import Jitted, jit
from lightcourse.generation.kv_cache import kv_bytes, quantized_cache, window_cache
from lightcourse.generation.prompts import pad, unpad
from lightcourse.generation.sessions import TorchSession, begin
from lightcourse.generation.speculative import Speculation, expected_speedup, speculate
from lightcourse.generation.streams import generate, stream
from lightcourse.generation.text import write

__all__ = [
    "Jitted",
    "ModelDraft",
    "Speculation",
    "TorchSession",
    "begin",
    "certain",
    "drawn",
    "expected_speedup",
    "generate",
    "jit",
    "kv_bytes",
    "likeliest",
    "pad",
    "probabilities",
    "prompt_lookup",
    "quantized_cache",
    "sampled",
    "speculate",
    "stream",
    "surprise",
    "unpad",
    "window_cache",
    "write",
]
