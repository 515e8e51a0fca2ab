"""Labels are numbers of classes, or are refused."""

import pytest

from lightcourse import data


def rows_with(labels, names=None):
    from datasets import ClassLabel, Dataset

    dataset = Dataset.from_dict(
        {"text": [f"text {i}" for i in range(len(labels))], "label": labels}
    )
    return dataset.cast_column("label", ClassLabel(names=names)) if names else dataset


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        (["spam", "ham"], None, "row 0: label is 'spam'; a whole number.*class_encode_column"),
        ([0, 1, None], None, "row 2: label is None"),
        ([0, -1], None, "row 1: label is -1"),
        ([0, -1], ["a", "b"], "row 1: label is -1; 0..1 is wanted"),
        ([0.0, 1.0], None, "row 0: label is 0.0"),
    ],
)
def test_labels_that_are_no_numbers_of_classes(labels, names, message, tokenizer):
    with pytest.raises(ValueError, match=message):
        data.ordered_batches(rows_with(labels, names), tokenizer)


def test_words_as_labels_are_numbered_on_request(tokenizer):
    dataset = rows_with(["spam", "ham", "spam"]).class_encode_column("label")
    assert data.ordered_batches(dataset, tokenizer)[0]["labels"].tolist() == [1, 0, 1]


def test_texts_that_are_none(tokenizer):
    from datasets import Dataset

    with pytest.raises(ValueError, match="row 1: text is None"):
        data.ordered_batches(Dataset.from_dict({"text": ["a", None], "label": [0, 1]}), tokenizer)


def test_classes_are_counted_in_order_and_the_commonest_is_found():
    dataset = rows_with([2, 0, 2, 0, 1], ["x", "y", "z", "none"])
    assert list(data.class_counts(dataset).items()) == [("x", 2), ("y", 1), ("z", 2), ("none", 0)]
    assert data.majority_class(dataset) == 0
    with pytest.raises(ValueError, match="no column 'label' with named classes"):
        data.class_counts(rows_with([0, 1]))
    with pytest.raises(ValueError, match="no column 'label'"):
        data.class_counts(dataset.remove_columns("label"))
