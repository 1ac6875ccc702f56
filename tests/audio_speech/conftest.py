"""A dozen engraved and played chorales, made once for all tests of this folder."""

import pytest

from counterpoint.audio_speech.configs import SheetDataConfig
from counterpoint.audio_speech.snippets import SnippetData, load_snippets


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> SheetDataConfig:
    """Twelve chorales, one performance each, in a cache of their own."""
    return SheetDataConfig(
        pieces=12,
        renditions=("flute@1.0", "organ@1.1"),
        renditions_per_piece=1,
        test_snippets=24,
        val_snippets=10,
        workers=1,
        cache=str(tmp_path_factory.mktemp("cache")),
    )


@pytest.fixture(scope="session")
def snippets(small_data: SheetDataConfig) -> SnippetData:
    """The snippets of `small_data`."""
    return load_snippets(small_data)
