"""Labels of a set: whether they are sound, and how many of each there are."""


def label_numbers(dataset) -> list[int]:
    """Return the column label, or raise ``ValueError`` where it holds no number of a class.

    Words, missing labels (None, or -1 as in the test sets of some benchmarks) and numbers
    beyond the named classes are refused, with their row.
    """
    labels = dataset["label"][:]
    names = getattr(dataset.features["label"], "names", None)
    for row, label in enumerate(labels):
        if type(label) is not int or label < 0 or (names and label >= len(names)):
            wanted = f"0..{len(names) - 1}" if names else "a whole number from 0"
            raise ValueError(
                f"dataset, row {row}: label is {label!r}; {wanted} is wanted "
                "(dataset.class_encode_column('label') numbers words)"
            )
    return labels


def class_counts(dataset) -> dict[str, int]:
    """Return how many rows each class has, by its name, in the order of the labels.

    Parameters
    ----------
    dataset : datasets.Dataset
        One split, with a ``ClassLabel`` column label.

    Returns
    -------
    dict of str to int
        Classes without a row count 0.

    Raises
    ------
    ValueError
        When the labels have no names, or one is missing.

    Examples
    --------
    >>> from lightcourse import data
    >>> class_counts(data.load_reviews()["test"])
    {'negative': 590, 'positive': 714}
    """
    names = getattr(dataset.features.get("label"), "names", None)
    if names is None:
        raise ValueError(
            "dataset has no column 'label' with named classes; "
            "dataset.class_encode_column('label') makes them"
        )
    labels = label_numbers(dataset)
    return {name: labels.count(number) for number, name in enumerate(names)}


def majority_class(dataset) -> int:
    """Return the commonest label; of equally common ones the lowest.

    Who always gives this answer, of the training set, is the baseline that every
    classifier must beat.
    """
    counts = list(class_counts(dataset).values())
    return counts.index(max(counts))
