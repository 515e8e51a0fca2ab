"""Work on the Chinese edition: ``python -m tools.translations [VERB …]``.

Without a verb it brings catalogues up to date and writes the notebooks of ``zh/``, as ``make
notebooks`` does, and tells what waits. ``dump NN FILE`` writes the paragraphs that wait into a file
of plain text, ``load NN FILE`` reads translations from one, and says what is wrong with them;
``labels NN`` lists the words that may stand in a chapter's figures.
"""

import hashlib
import sys
from pathlib import Path

from tools import notebooks
from tools.translations import catalogue, edition, glossary, keeping, labels

MARK = "=== "


def update(root: Path = notebooks.ROOT) -> None:
    """Bring each catalogue up to date with its room, and the edition with both."""
    catalogue.save(catalogue.common(root), root / "sources")
    for room in catalogue.rooms(root):
        if (room / catalogue.FILE).exists():
            found = catalogue.of_room(room)
            catalogue.save(found, room)
            if waiting := catalogue.waiting(found):
                total = sum(bool(message.id) for message in found)
                print(f"{room.name}: {len(waiting)} of {total} paragraphs wait for Chinese")
    for path in edition.write(root):
        print(f"{path.relative_to(root)}: written")


def dump(name: str, file: str, root: Path = notebooks.ROOT) -> None:
    """Write what waits in a room as plain text: a line with a key and a place, then English."""
    room = _room(name, root)
    found = catalogue.of_room(room)
    catalogue.save(found, room)
    waiting = catalogue.waiting(found)
    Path(file).write_text("\n".join(map(_dumped, waiting)), encoding="utf-8")
    print(f"{len(waiting)} paragraphs in {file}")


def _dumped(message):
    place = " ".join(f"{name}:{number}" for name, number in message.locations)
    old = f"[was: {message.previous_id[0]}]\n[so far: {message.string}]\n" if message.fuzzy else ""
    return f"{MARK}{_key(message)} {place}\n{old}{message.id}\n"


def load(name: str, file: str, root: Path = notebooks.ROOT) -> None:
    """Read translations, each below the key of its paragraph, and say what is wrong with them."""
    room, found = _room(name, root), {}
    for block in f"\n{Path(file).read_text(encoding='utf-8')}".split(f"\n{MARK}")[1:]:
        head, _, text = block.partition("\n")
        found[head.split()[0]] = text.strip("\n")
    ours = catalogue.of_room(room)
    for message in ours:
        if message.id and (text := found.pop(_key(message), "")):
            message.string, message.previous_id = text, ()
            message.flags.discard("fuzzy")
    catalogue.save(ours, room)
    for key in found:
        print(f"{key}: no paragraph has that key")
    _report(room, ours, root)


def _report(room, found, root):
    for key, complaint in complaints(found, root):
        print(f"{key}: {complaint}")
    print(f"{room.name}: {len(catalogue.waiting(found))} paragraphs wait for Chinese")


def complaints(found, root: Path = notebooks.ROOT):
    """Yield (a paragraph's key, place and beginning; what is wrong with its translation)."""
    for message in found:
        if message.id and message.string and not message.fuzzy:
            place = " ".join(f"{name}:{number}" for name, number in message.locations)
            where = f"{_key(message)} {place} {message.id[:50]!r}"
            for said in keeping.complaints(message.id, message.string):
                yield where, said
            for said in glossary.complaints(message.id, message.string, root):
                yield where, said


def _key(message):
    """Return a paragraph's key: eight letters that change with its English alone."""
    return hashlib.sha256(f"{message.context}\0{message.id}".encode()).hexdigest()[:8]


def _room(name, root):
    if name == "sources":
        raise SystemExit("sources/zh.po is short: write into it by hand")
    found = [room for room in catalogue.rooms(root) if room.name.startswith(name)]
    if len(found) != 1:
        raise SystemExit(
            f"{name!r} is no room; there are {[r.name for r in catalogue.rooms(root)]}"
        )
    return found[0]


def list_labels(name: str, root: Path = notebooks.ROOT) -> None:
    """Print the words of a room's code that may stand in figures, as lines of TOML."""
    for label in labels.of_room(_room(name, root)):
        print(label)


VERBS = {"update": update, "dump": dump, "load": load, "labels": list_labels}

if __name__ == "__main__":
    verb, *rest = sys.argv[1:] or ["update"]
    if verb not in VERBS:
        raise SystemExit(__doc__)
    VERBS[verb](*rest)
