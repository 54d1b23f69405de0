"""What a large text costs: to prepare, to start on, and to load from.

A text of documents of 4,000 characters on average is made from the words of the standard library, by their frequency.
A BPE tokenizer of 8192 entries is trained on its beginning. Then, each part in a process of its own, in turn:

1. The tokenizers library alone: seconds in `encode_batch`, and in the quicker `encode_batch_fast`, over the same texts
   in batches of 1,000. Reading the file is not counted, and the ids are not taken out.
2. `lmexp prepare`: seconds from the file to the finished store, its two passes over the file and all hashes included,
   and by how much the process's memory grew at most. The same for a quarter of the text; both should be alike.
3. A start on the store: seconds to open it, check it, and get the first batch.
4. Loading: median milliseconds of a batch, and its share of a step of 20 ms.

With `--bytes`, part 2 has the byte tokenizer and part 1 is left out: that shows the memory of a large text in minutes.
With `--start TOKENS`, only a start is measured, on a store of so many tokens. Most of them are zeros, which take no
room on the disk. In turn, the order of windows is computed from keys, and by sorting random numbers.

python benchmarks/prepare.py [--gigabytes 0.2] [--repeats 3] [--bytes] [--start TOKENS] [--folder FOLDER]
"""

import argparse
import multiprocessing
import os
import re
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil

from lmexp.config.data import FileData, StdlibData
from lmexp.config.tokenizers import ByteTokenizerConfig, SavedTokenizerConfig
from lmexp.data import order
from lmexp.data.lines import lines
from lmexp.data.loading import TrainBatches
from lmexp.data.sources import documents
from lmexp.data.store import Store, prepare
from lmexp.data.tokenizers.build import load_tokenizer
from lmexp.data.tokenizers.lossless import train_bpe
from lmexp.data.windows import Windows
from lmexp.files import read_json, write_json

WORDS_OF_A_DOCUMENT = 420
DRAWN = 2_000_000
"""Words that are drawn."""
TRAINED_ON = 20_000_000
"""Characters that the tokenizer is trained on."""
VOCAB_SIZE = 8192
BATCHES = ((8, 256), (16, 1024), (64, 1024))
"""Sequences and context of the batches that are loaded."""
STEP_MS = 20.0


def make_text(file: Path, size: int) -> None:
    """Write about `size` bytes of documents, one a line, with words and spaces in the standard library's frequency.

    Some megabytes are drawn and repeated, each time with another number in front, so that no two documents are equal.
    """
    sample = "".join(islice((text for _, text in documents(StdlibData(source="stdlib"))), 200))
    counts = Counter(re.findall(r"\s*\S+", sample.replace("\n", " ")))
    words, frequency = np.array(list(counts), object), np.array(list(counts.values()), float)
    bounds = np.cumsum(frequency / frequency.sum())
    draw = np.random.default_rng(0)
    drawn = words[np.minimum(np.searchsorted(bounds, draw.random(DRAWN)), len(words) - 1)]
    ends = np.cumsum(draw.integers(1, 2 * WORDS_OF_A_DOCUMENT, 2 * DRAWN // WORDS_OF_A_DOCUMENT))
    texts = ["".join(part) for part in np.split(drawn, ends[ends < len(drawn)])]
    with file.open("w") as stream:
        for number in count():
            for text in texts:
                stream.write(f"{number} {text}\n")
                size -= len(text)
                if size < 0:
                    return


def data_of(file: Path) -> FileData:
    """Return the config that reads such a text."""
    return FileData(source="files", path=str(file), format="txt", document="line")


def in_process(work: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """Return what `work` measures in a process of its own, and by how much its memory grew at most."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_with_memory, (work, *arguments))


def _with_memory(work: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    process, most, done = psutil.Process(), [0], threading.Event()
    before = process.memory_info().rss

    def watch() -> None:
        while not done.wait(0.02):
            most.append(process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    measured = work(*arguments)
    done.set()
    watcher.join()
    return measured | {"memory_mb": (max(most) - before) / 1e6}


def library_alone(file: Path, tokenizer: Path, method: str) -> dict[str, float]:
    """Return the seconds that the tokenizers library spends on all texts."""
    encode = getattr(load_tokenizer(tokenizer)._model, method)  # type: ignore[attr-defined]
    seconds, texts = 0.0, (line.rstrip("\n") for _, line in lines(file))
    while batch := list(islice(texts, 1000)):
        start = time.perf_counter()
        encode(batch)
        seconds += time.perf_counter() - start
    return {"seconds": seconds}


def prepared(file: Path, tokenizer: Path | None, root: Path) -> dict[str, float]:
    """Return the seconds from a file to its store; without a tokenizer, tokens are bytes."""
    saved = SavedTokenizerConfig(kind="saved", path=str(tokenizer))
    start = time.perf_counter()
    store = prepare(data_of(file), ByteTokenizerConfig(kind="byte") if tokenizer is None else saved, root)
    return {"seconds": time.perf_counter() - start, "tokens": store.tokens("train") + store.tokens("validation")}


def started(path: Path, sorted_at_most: int | None = None) -> dict[str, float]:
    """Return the seconds until the first batch of a store is there; up to so many windows are sorted."""
    if sorted_at_most is not None:
        order._SORTED_AT_MOST = sorted_at_most
    start = time.perf_counter()
    store = Store.open(path)
    opened = time.perf_counter() - start
    Windows(store, 256, seed=0).batch(0, 8)
    return {"seconds": time.perf_counter() - start, "open_seconds": opened}


def loaded(path: Path) -> dict[str, float]:
    """Return the median milliseconds of batches, by their shape, while each step takes STEP_MS."""
    measured = {}
    for sequences, context in BATCHES:
        batches, times = iter(TrainBatches(Windows(Store.open(path), context, seed=0), sequences, sequences)), []
        for _ in range(200):
            start = time.perf_counter()
            next(batches)
            times.append(1000 * (time.perf_counter() - start))
            time.sleep(STEP_MS / 1000)
        measured[f"{sequences} x {context}"] = median(times)
    return measured


def numbers(values: list[float]) -> str:
    """Return the median and the range of repeated measurements."""
    return f"{median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def measure(folder: Path, gigabytes: float, repeats: int, of_bytes: bool) -> None:
    """Make the text in a folder, measure, and print."""
    text, quarter = folder / "text.txt", folder / "quarter.txt"
    tokenizer = None if of_bytes else folder / "tokenizer.json"
    for file, size in ((text, gigabytes), (quarter, gigabytes / 4)):
        if not file.exists():
            make_text(file, int(size * 1e9))
    if tokenizer is not None and not tokenizer.exists():
        train_bpe(VOCAB_SIZE, texts_until(text, TRAINED_ON)).save(tokenizer)
    megabytes = text.stat().st_size / 1e6
    print(f"{megabytes:,.0f} MB of text", flush=True)
    methods = [] if of_bytes else ["encode_batch", "encode_batch_fast"]
    seconds: dict[str, list[float]] = {name: [] for name in [*methods, "prepare"]}
    for repeat in range(repeats):
        for method in methods:
            seconds[method].append(in_process(library_alone, text, tokenizer, method)["seconds"])
        whole = in_process(prepared, text, tokenizer, folder / f"stores{repeat}")
        seconds["prepare"].append(whole["seconds"])
    for name, values in seconds.items():
        print(f"{name:18} {numbers(values)} s, {megabytes / median(values):.1f} MB/s", flush=True)
    for name in methods:
        ratio = [library / ours for library, ours in zip(seconds[name], seconds["prepare"], strict=True)]
        print(f"speed of prepare relative to {name}: {numbers(ratio)}")
    part = in_process(prepared, quarter, tokenizer, folder / "stores")
    grown, grown_less = (f"{measured['memory_mb']:,.0f} MB" for measured in (whole, part))
    print(f"memory of prepare: {grown} more than before; for a quarter of the text {grown_less}")
    (store,) = (path.parent for path in (folder / "stores0").glob("*/manifest.json"))
    starts = [in_process(started, store) for _ in range(repeats)]
    whole_start, opened = ([start[key] for start in starts] for key in ("seconds", "open_seconds"))
    print(f"start on {whole['tokens']:,.0f} tokens: {numbers(whole_start)} s, of which opening {numbers(opened)} s")
    for shape, ms in in_process(loaded, store).items():
        if shape != "memory_mb":
            print(f"batch of {shape}: {ms:.3f} ms, {ms / STEP_MS:.2%} of a step of {STEP_MS:g} ms")


def measure_start(folder: Path, tokens: int, repeats: int) -> None:
    """Make a store with a training text of so many tokens, all but the first zeros, and print what a start takes."""
    make_text(folder / "text.txt", 1_000_000)
    store = prepare(data_of(folder / "text.txt"), ByteTokenizerConfig(kind="byte"), folder / "stores").path
    manifest = read_json(store / "manifest.json")
    os.truncate(store / "train.bin", tokens * np.dtype(manifest["dtype"]).itemsize)
    manifest["splits"]["train"]["tokens"] = tokens
    write_json(store / "manifest.json", manifest)  # newer than the text, which is then not read as a whole
    starts: dict[str, list[float]] = {"keyed": [], "sorted": []}
    for _ in range(repeats):
        for name, values in starts.items():
            values.append(in_process(started, store, tokens if name == "sorted" else None)["seconds"])
    for name, values in starts.items():
        ms = [1000 * seconds for seconds in values]
        print(f"start on {tokens:,} tokens, {name:6}: {median(ms):,.1f} ms ({min(ms):,.1f} to {max(ms):,.1f})")


def texts_until(file: Path, characters: int) -> Iterator[str]:
    """Yield documents until there are so many characters."""
    for _, line in lines(file):
        yield line
        characters -= len(line)
        if characters < 0:
            return


def main() -> None:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(description="What a large text costs: to prepare, to start on, to load from.")
    parser.add_argument("--gigabytes", type=float, default=0.2, help="size of the text [default: 0.2]")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where text and stores are kept [default: a temporary folder]")
    parser.add_argument("--bytes", action="store_true", help="measure the byte tokenizer, without the library")
    parser.add_argument("--start", type=int, metavar="TOKENS", help="measure only a start on a text of so many tokens")
    options = parser.parse_args()
    if options.start is not None:
        with tempfile.TemporaryDirectory() as folder:
            measure_start(Path(folder), options.start, options.repeats)
        return
    if options.folder is not None:
        options.folder.mkdir(parents=True, exist_ok=True)
        measure(options.folder, options.gigabytes, options.repeats, options.bytes)
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options.gigabytes, options.repeats, options.bytes)


if __name__ == "__main__":
    main()
