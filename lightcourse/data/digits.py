"""Digits that are seen and read: images by people, words and all noise made by rule."""

import torch

from lightcourse.data.typos import with_typos

TONGUES = (
    ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    ("null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"),
    ("zéro", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf"),
    ("cero", "uno", "dos", "tres", "cuatro", "cinco", "seis", "siete", "ocho", "nueve"),
)
# Of an image's snow (a point is 0 to 1) and of typing mistakes: nearly clean, nearly lost.
SNOW, MISTAKES = (0.15, 1.2), (0.05, 0.9)


def noisy_digits(seed: int = 0, together: bool = False) -> dict:
    """Return 1,797 digits, each as a noisy image and as a misspelt word.

    The images are scikit-learn's (8 × 8 points, written by people), in an order that is the same
    for all seeds. **Made** are the words, English, German, French or Spanish by lot, and the noise:
    half of the images are nearly lost in snow and half of the words in typing mistakes, the other
    halves are nearly clean.

    Parameters
    ----------
    seed : int
        Of tongues and noise.
    together : bool
        Whether the same rows are hard in both; else the halves are drawn apart.

    Returns
    -------
    dict
        ``image``, float32 of shape (1797, 64), about 0 to 1 and snow; ``word``, a list of str;
        ``label``, int64 of shape (1797,).

    Examples
    --------
    >>> rows = noisy_digits()
    >>> rows["image"].shape, len(rows["word"]), rows["label"][:3].tolist()
    (torch.Size([1797, 64]), 1797, [6, 5, 5])
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    label = torch.tensor(digits.target)[order].long()
    draws = torch.Generator().manual_seed(seed)
    hard = torch.rand(len(order), generator=draws) < 0.5
    other = hard if together else hard[torch.randperm(len(order), generator=draws)]
    image = torch.tensor(digits.images).float().flatten(1)[order] / 16
    snow = torch.where(hard, SNOW[1], SNOW[0])[:, None]
    image = image + snow * torch.randn(image.shape, generator=draws)
    tongue = torch.randint(len(TONGUES), (len(order),), generator=draws).tolist()
    rates = torch.where(other, MISTAKES[1], MISTAKES[0]).tolist()
    rows = enumerate(zip(tongue, label.tolist(), rates, strict=True))
    word = [with_typos(TONGUES[t][digit], rate, seed=n) for n, (t, digit, rate) in rows]
    return {"image": image, "word": word, "label": label}
