"""Fewer bits for frequent codes: Huffman's bytes, really written and read back.

Huffman 1952; for weights Han et al. 2015, Deep Compression, arXiv 1510.00149, section 4.
"""

import heapq

import numpy as np
import torch


def huffman_lengths(counts: torch.Tensor) -> torch.Tensor:
    """Return how many bits the word of each code has, so that all words together are shortest.

    The two rarest groups of codes are joined until one is left; each time, the words of both
    become a bit longer.

    Parameters
    ----------
    counts : Tensor of integers, shape (codes,)
        How often each code occurs; up to 256 codes.

    Returns
    -------
    Tensor of uint8, shape (codes,)
        0 for codes that do not occur. A single code gets 1.

    Raises
    ------
    ValueError
        When ``counts`` has no positive number, a negative one, or more than 256.

    Examples
    --------
    >>> huffman_lengths(torch.tensor([50, 25, 15, 10])).tolist()
    [1, 2, 3, 3]
    """
    if counts.ndim != 1 or len(counts) > 256 or (counts < 0).any() or not counts.any():
        raise ValueError(f"counts is {counts.tolist()}; up to 256 counts of 0 and more are wanted")
    groups = [(count, code, [code]) for code, count in enumerate(counts.tolist()) if count]
    lengths = torch.zeros(len(counts), dtype=torch.uint8)
    if len(groups) == 1:
        lengths[groups[0][2]] = 1
    heapq.heapify(groups)
    while len(groups) > 1:
        (first, tie, some), (second, _, others) = heapq.heappop(groups), heapq.heappop(groups)
        lengths[some + others] += 1
        heapq.heappush(groups, (first + second, tie, some + others))
    return lengths


def huffman_encode(codes: torch.Tensor) -> bytes:
    """Write codes in Huffman's words: the number of codes, the lengths of the words, the words.

    The lengths say it all, since words are given out in order of length and code ("canonical").

    Parameters
    ----------
    codes : Tensor of uint8
        Any shape, at least one.

    Returns
    -------
    bytes

    Raises
    ------
    ValueError
        When there is no code, or a word would have more than 57 bits.

    Examples
    --------
    >>> len(huffman_encode(torch.zeros(8000, dtype=torch.uint8))) - 8 - 256
    1000
    """
    flat = codes.flatten().numpy()
    if flat.dtype != np.uint8 or not len(flat):
        raise ValueError(f"codes are {len(flat)} of {flat.dtype}; uint8, at least one, are wanted")
    lengths = huffman_lengths(torch.from_numpy(np.bincount(flat, minlength=256))).numpy()
    words = _words(lengths)
    size = lengths[flat].astype(np.int64)
    ends = np.cumsum(size)
    bits = np.zeros(ends[-1], np.uint8)
    for place in range(lengths.max()):  # the words' first bits at once, then the second ones
        has = size > place
        bits[(ends - size)[has] + place] = (words[flat[has]] >> (size[has] - place - 1)) & 1
    return len(flat).to_bytes(8, "little") + lengths.tobytes() + np.packbits(bits).tobytes()


def huffman_decode(data: bytes) -> torch.Tensor:
    """Read back what :func:`huffman_encode` wrote.

    Parameters
    ----------
    data : bytes

    Returns
    -------
    Tensor of uint8, in one row

    Raises
    ------
    ValueError
        When the bytes end too early.

    Examples
    --------
    >>> huffman_decode(huffman_encode(torch.tensor([3, 1, 3, 3], dtype=torch.uint8))).tolist()
    [3, 1, 3, 3]
    """
    head = data[:264].ljust(264, b"\0")
    count, lengths = int.from_bytes(head[:8], "little"), np.frombuffer(head[8:], np.uint8)
    words = _words(lengths)
    known = {(int(lengths[code]), int(words[code])): code for code in np.flatnonzero(lengths)}
    found, word, length = [], 0, 0
    for bit in np.unpackbits(np.frombuffer(data[264:], np.uint8)).tolist():
        word, length = word << 1 | bit, length + 1
        if (code := known.get((length, word))) is not None and len(found) < count:
            found.append(code)
            word = length = 0
    if not count or len(found) < count:
        raise ValueError(f"data ends after {len(found)} of {count} codes; it is cut off")
    return torch.tensor(found, dtype=torch.uint8)


def _words(lengths):
    """Give out words in the order of length and code, each the one before it plus 1."""
    words, word, before = np.zeros(len(lengths), np.int64), -1, 0
    for code in np.lexsort((np.arange(len(lengths)), lengths)):
        if lengths[code]:
            word = (word + 1) << (int(lengths[code]) - before)
            words[code], before = word, int(lengths[code])
    return words
