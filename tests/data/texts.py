"""The texts of a source, which several tests of lmexp.data read."""

from lmexp.config.data import DataConfig
from lmexp.data.sources import documents


def texts_of(data: DataConfig) -> list[str]:
    """Return the texts of all documents, in order."""
    return [text for _, text in documents(data)]
