"""The page's tokenizer in a real browser: its ids are those of Python's."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightcourse import data, models
from tests.demo import browser

browser.skip_without()
pytestmark = pytest.mark.timeout(600)  # the first time the demo is built

ODD = [
    "",
    " \t\n\r\x0b\x0c\x85\u2028\u3000x\u200b\ufeffy\u00ady\x00z\ufffd",
    "Ünïcödé ÀÉÎÕÜ ñ Ç ŷ ǅ ﬁ ﬀ ½ ² Ⅷ №",
    "ΑΣ ΣΑΣ İstanbul ı ẞ ß ŉ",
    "e\u0301 \u0301e a\u0328\u0301 ố ḍ̇",
    "中文字符 日本語カタカナ ｶﾀｶﾅ 한국어 𠀀𪜀𫝀𫠠 豈 丽 ㈱",
    "العربيّة עִבְרִית हिन्दी தமிழ் ไทย",
    "😀 👍🏽 👩‍👩‍👧 🇰🇷 ❤️ \U0001f9ff",
    "$1,000.00 + 5% = <b>&amp;</b> ^_^ `x|y~z` don't—stop…“quotes” ¿qué? «x» §3 ¶ ·",
    "[CLS] [SEP] [PAD] [MASK] [UNK] [cls] [ SEP ] a[SEP]b [[MASK]]",
    "a" * 100 + " " + "a" * 101 + " " + "é" * 100 + " 好" * 3,
    "unaffable supercalifragilisticexpialidocious xqzjk ##ing # #",
    "good " * 600,
    "https://example.com/a?b=c&d=e#f user@example.com C++ C# .NET 3.14e-10",
]
# Of what Unicode 3.2 had: later versions made them a symbol, a spacing mark and two marks. The
# tokenizer of Python has the tables of version 8.
CHANGED = {0x166D, 0x1734, 0x1885, 0x1886}


@pytest.fixture(scope="module")
def tokenizer():
    return models.load_minilm_tokenizer()


def ids_of(page, texts, most=512):
    # As JSON: Playwright takes a minute over a list as long as that.
    encode = """([json, most]) => JSON.stringify(
      JSON.parse(json).map((text) => window.lightcourse.encoder.tokenizer.encode(text, most)))"""
    return json.loads(page.evaluate(encode, [json.dumps(texts), most]))


def assert_same(page, tokenizer, texts, most=512):
    wanted = tokenizer(texts, truncation=True, max_length=most)["input_ids"]
    for text, got, want in zip(texts, ids_of(page, texts, most), wanted, strict=True):
        assert got == want, text


def test_the_ids_of_odd_texts_are_those_of_python(shared, tokenizer):
    assert_same(shared, tokenizer, ODD)
    assert_same(shared, tokenizer, ODD, 8)


def test_the_ids_of_reviews_and_passages_are_those_of_python(shared, tokenizer):
    for load, every in ((data.load_reviews, 2), (data.load_factbook, 4)):
        splits = load()
        texts = [text for name in splits for text in splits[name]["text"][::every]]
        assert_same(shared, tokenizer, texts)


def test_the_ids_around_every_character_are_those_of_python(shared, tokenizer):
    # Characters that are younger than Python's table of Unicode 3.2 are not compared.
    old = unicodedata.ucd_3_2_0.category
    # Of Chinese and Korean, one in seven: there are tens of thousands, all alike.
    some = [*range(0x3400), *range(0x3400, 0xD7A8, 7), *range(0xE000, 0xF0000)]
    codes = [c for c in some if old(chr(c)) not in ("Cn", "Cs", "Co")]
    texts = [f"a{chr(c)}b" for c in codes]
    got, want = ids_of(shared, texts), tokenizer(texts)["input_ids"]
    differ = {ord(text[1]) for text, a, b in zip(texts, got, want, strict=True) if a != b}
    assert len(texts) > 20_000
    assert differ <= CHANGED


def test_the_ids_of_any_text_are_those_of_python(shared, tokenizer):
    letters = "aàÀßΣσς好 .,'-#[]\u0301\u200b\t\x00😀１²"
    words = st.sampled_from(["the", "un", "##", "[SEP]", "İ", "…", "ǅ", "한"])

    @given(
        st.lists(st.lists(st.sampled_from(letters) | words, max_size=12).map("".join), min_size=1)
    )
    def compare(texts):
        assert_same(shared, tokenizer, texts)

    compare()
