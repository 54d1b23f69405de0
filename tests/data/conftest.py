"""Texts and token stores that the tests of lmexp.data share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmexp.config.data import FileData, StdlibData
from lmexp.config.tokenizers import BPETokenizerConfig, ByteTokenizerConfig
from lmexp.data.store import Store, prepare


@pytest.fixture
def files(tmp_path: Path) -> Callable[..., FileData]:
    """Write content to a file and return the config that reads it."""

    def write(name: str, content: str | bytes, **options: Any) -> FileData:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        fields: dict[str, Any] = {"path": str(path), "format": path.suffix[1:], **options}
        return FileData(source="files", **fields)

    return write


@pytest.fixture(scope="session")
def byte_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, int], Store]:
    """Return a store whose splits hold so many tokens; the byte tokenizer makes each one character."""
    stores: dict[tuple[int, int], Store] = {}

    def make(train: int, validation: int) -> Store:
        if (train, validation) not in stores:
            folder = tmp_path_factory.mktemp("byte_store")
            n, m = train - 1, validation - 1  # a split begins with the document token
            text = "".join(chr(33 + i % 94) for i in range(n + m))
            (folder / "a.txt").write_text(text)
            share = (m - 0.5) / (n + m)  # half a character keeps int() from rounding errors
            data = FileData(source="files", path=str(folder / "a.txt"), format="txt", split="tail", validation=share)
            store = prepare(data, ByteTokenizerConfig(kind="byte"), folder / "stores")
            assert (store.tokens("train"), store.tokens("validation")) == (train, validation)
            stores[train, validation] = store
        return stores[train, validation]

    return make


@pytest.fixture(scope="session")
def stdlib_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return the standard library under a small vocabulary."""
    config = BPETokenizerConfig(kind="bpe", vocab_size=512)
    return prepare(StdlibData(source="stdlib"), config, tmp_path_factory.mktemp("stdlib"))
