"""What holds for every labelled set."""

from lightcourse import data


def normal(text):
    return " ".join(text.lower().split())


def assert_sound(dataset, names):
    """Assert what holds for every labelled set."""
    assert set(dataset) == set(data.SPLITS)
    texts = [normal(text) for split in data.SPLITS for text in dataset[split]["text"]]
    assert len(texts) == len(set(texts))
    assert all(texts)
    for split in data.SPLITS:
        label = dataset[split].features["label"]
        assert label.names == names
        assert set(dataset[split]["label"]) <= set(range(len(names)))
