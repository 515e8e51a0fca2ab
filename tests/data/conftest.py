"""What the tests of the data share."""

import pytest

from lightcourse import data, models


@pytest.fixture(scope="module")
def reviews():
    return data.load_reviews()


@pytest.fixture(scope="module")
def factbook():
    return data.load_factbook()


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_tiny_tokenizer()
