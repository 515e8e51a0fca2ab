"""Names in a figure that do not cover each other."""


def apart(heights: list[float], gap: float) -> list[float]:
    """Move sorted heights so that neighbours differ by ``gap`` at least, around their middle.

    Examples
    --------
    >>> apart([1.0, 1.0], gap=2.0)
    [0.0, 2.0]
    """
    spread = []
    for height in heights:
        spread.append(max(height, spread[-1] + gap) if spread else height)
    excess = sum(spread) - sum(heights)
    return [height - excess / max(1, len(heights)) for height in spread]
