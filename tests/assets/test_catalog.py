"""Every package is pinned by its hash."""

from lightcourse import assets


def test_the_catalogue_is_pinned():
    sources = [source for asset in assets.CATALOG.values() for source in asset.sources]
    assert all(len(source.sha256) == 64 and int(source.sha256, 16) for source in sources)
    assert all(source.client in ("pip", "npm") for source in sources)
    assert len({source.archive for source in sources}) == len(sources)
    needed = {a.name for a in assets.CATALOG.values() if a.needed}
    assert needed == {"minilm", "smollm2", "chinese-reviews", "movie-ratings"}
    assert all(name == asset.name for name, asset in assets.CATALOG.items())
