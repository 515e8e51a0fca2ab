"""Text from another process becomes a value or a ValueError, whatever it says."""

import base64
import json

import pytest

from lightcourse import wire


def letters(plain):
    return base64.b64encode(json.dumps(plain).encode()).decode()


def nested(depth):
    plain = 1
    for _ in range(depth):
        plain = {"list": [plain]}
    return plain


@pytest.mark.parametrize(
    "plain",
    [
        {"tensor": ["float32", [0, 2**62, 2**62], ""]},
        {"tensor": ["float32", [0, 2**70], ""]},
        {"tensor": ["int64", [-1], ""]},
        {"tensor": ["int64", [2], "AAAA"]},
        {"tensor": 5},
        {"array": ["int8", [0, 2**70], ""]},
        {"array": ["object", [1], "AAAA"]},
        {"nothing": 1},
        {"list": 7},
        [1],
        {},
        nested(wire.DEEPEST + 1),
    ],
    ids=str,
)
def test_what_encode_never_writes_is_refused(plain):
    with pytest.raises(ValueError, match="no value in these"):
        wire.decode(letters(plain))


@pytest.mark.parametrize("text", ["", "x", "=", "é", letters([])[:-2], "A" * 4 * 10**5])
def test_what_is_no_json_is_refused(text):
    with pytest.raises(ValueError, match="no value in these"):
        wire.decode(text)


def test_what_is_too_long_is_neither_sent_nor_read():
    with pytest.raises(ValueError, match="letters; at most"):
        wire.encode("x" * wire.MOST_LETTERS)
    with pytest.raises(ValueError, match="letters; at most"):
        wire.decode("A" * (wire.MOST_LETTERS + 4))


def test_containers_go_as_deep_as_they_may():
    assert str(wire.decode(letters(nested(wire.DEEPEST)))) == "[" * 20 + "1" + "]" * 20
