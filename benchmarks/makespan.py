"""How long a study of small runs takes from the command to the last result, against the same runs one after another.

Twenty-four runs of one tiny GPT, which differ in seed and learning rate, are trained in these ways:

- `lmexp sweep` with `launcher.devices_per_run=auto`, the first time (it measures how many runs to train side by side)
  and with that known;
- `lmexp train` as 24 commands, one after another: the same runs with the same records;
- a plain script as 24 commands, one after another: a short training loop over the same GPT that reads the same bytes,
  takes as many steps on as many tokens, scores the same validation text once, and keeps nothing.

    python benchmarks/makespan.py [--runs 24] [--tokens 100000] [--rounds 3]
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from lmexp.cost.device import cores
from lmexp.data.sources import library_files

LAYERS, WIDTH, HEADS, CONTEXT, BATCH = 2, 64, 2, 64, 1024
"""The model, and the tokens of a batch."""
TEXT_FILES = 40
SHAPE = [
    "model=gpt", f"model.n_layers={LAYERS}", f"model.d_model={WIDTH}", f"model.n_heads={HEADS}",
    f"model.context={CONTEXT}", "model.dropout=0", f"batch.tokens={BATCH}", "tokenizer=byte", "data=text",
    "evaluation.every=1", "checkpoint.every=1",
]  # fmt: skip
PLAIN = '''
"""A plain training loop: python plain.py TEXT SEED LR STEPS"""
import math
import sys

import torch
from torch import nn
from torch.nn import functional as F

LAYERS, WIDTH, HEADS, CONTEXT, BATCH = {shape}


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        batch, length, width = x.shape
        parts = self.qkv(self.first(x)).view(batch, length, 3, HEADS, width // HEADS).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*parts, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(F.gelu(self.up(self.second(x)), approximate="tanh"))


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens, self.places = nn.Embedding(257, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*[Block() for _ in range(LAYERS)])
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, tokens):
        x = self.blocks(self.tokens(tokens) + self.places(torch.arange(tokens.shape[1])))
        return self.norm(x) @ self.tokens.weight.T


def windows(data, starts):
    rows = torch.stack([data[start : start + CONTEXT + 1] for start in starts])
    return rows[:, :-1], rows[:, 1:]


text, seed, lr, steps = open(sys.argv[1], "rb").read(), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
data = torch.frombuffer(bytearray(text), dtype=torch.uint8).long()
train, validation = data[: int(len(data) * 0.99)], data[int(len(data) * 0.99) :]
torch.manual_seed(seed)
model = GPT()
for layer in model.modules():
    if isinstance(layer, (nn.Linear, nn.Embedding)):
        nn.init.normal_(layer.weight, 0.0, 0.02)
optimizer = torch.optim.AdamW(model.parameters(), lr=lr, fused=True)
for step in range(steps):
    share = step / steps
    optimizer.param_groups[0]["lr"] = lr * 0.5 * (1 + math.cos(math.pi * share))
    x, y = windows(train, torch.randint(len(train) - CONTEXT - 1, (BATCH // CONTEXT,)))
    loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
with torch.no_grad():
    x, y = windows(validation, range(0, len(validation) - CONTEXT - 1, CONTEXT))
    print(F.cross_entropy(model(x).flatten(0, 1), y.flatten()).item())
'''


class Study:
    """The same runs, trained in several ways; each way returns its seconds."""

    def __init__(self, folder: Path, runs: int, tokens: int) -> None:
        self.folder, self.steps = folder, tokens // BATCH
        self.settings = [(seed, f"{lr}e-4") for seed in range(runs // 4) for lr in (3, 6, 10, 20)]
        self.text, self.script = folder / "text.txt", folder / "plain.py"
        files = library_files(Path(subprocess.__file__).parent)[:TEXT_FILES]
        self.text.write_text("\n\n".join(path.read_text(errors="replace") for path in files))
        self.script.write_text(PLAIN.replace("{shape}", str((LAYERS, WIDTH, HEADS, CONTEXT, BATCH))))
        self.words = [*SHAPE, f"data.path={self.text}", "data.split=tail", f"budget.tokens={self.steps * BATCH}"]

    def sweep(self, outputs: Path) -> float:
        """Train all runs by one command."""
        rates = ",".join(dict.fromkeys(lr for _, lr in self.settings))
        seeds = ",".join(dict.fromkeys(str(seed) for seed, _ in self.settings))
        words = [*self.words, f"seed={seeds}", f"optim.lr={rates}", "launcher.devices_per_run=auto"]
        return self._seconds([self._lmexp("-m", *words, "--output-dir", str(outputs))])

    def commands(self, outputs: Path) -> float:
        """Train each run by a command of its own."""
        lines = [[*self.words, f"seed={seed}", f"optim.lr={lr}"] for seed, lr in self.settings]
        return self._seconds([self._lmexp(*line, "--output-dir", str(outputs)) for line in lines])

    def plain(self, _: Path) -> float:
        """Train each run by the plain script."""
        script = [sys.executable, str(self.script), str(self.text)]
        return self._seconds([[*script, str(seed), lr, str(self.steps)] for seed, lr in self.settings])

    def _lmexp(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "lmexp.cli", "train", *words]

    def _seconds(self, commands: list[list[str]]) -> float:
        began = time.perf_counter()
        for command in commands:
            ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.folder)
            if ended.returncode:
                raise SystemExit(ended.stderr)
        return time.perf_counter() - began


def main() -> None:
    """Print for each way its seconds, and how many times as fast the sweep is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=24, help="a multiple of 4 [default: 24]")
    parser.add_argument("--tokens", type=int, default=100_000, help="tokens of a run [default: 100000]")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study = Study(folder, options.runs, options.tokens)
        ways: dict[str, Callable[[Path], float]] = {
            "lmexp sweep, and its measurement": study.sweep,
            "lmexp sweep": study.sweep,
            "lmexp train, one after another": study.commands,
            "plain script, one after another": study.plain,
        }
        taken: dict[str, list[float]] = {way: [] for way in ways}
        for number in range(options.rounds):
            first, second, third = (folder / f"{number}-{part}" for part in ("sweep", "known", "commands"))
            for way, outputs in zip(ways, (first, second, third, third), strict=True):
                if (
                    way == "lmexp sweep"
                ):  # what the sweep before it measured, and its token store, stay; its runs do not
                    first.rename(second)
                    for row in second.glob("[!.]*"):
                        row.rename(folder / f"{number}-old-{row.name}")
                taken[way].append(ways[way](outputs))
                print(f"round {number + 1}: {way} {taken[way][-1]:.1f} s", flush=True)
        print(f"{len(study.settings)} runs of {study.steps} steps, {cores()} cores; medians")
        for way, seconds in taken.items():
            ratios = [each / known for each, known in zip(seconds, taken["lmexp sweep"], strict=True)]
            print(f"{way:34} {median(seconds):7.1f} s  {median(ratios):.2f} times the sweep's "
                  f"({min(ratios):.2f} to {max(ratios):.2f})")  # fmt: skip


if __name__ == "__main__":
    main()
