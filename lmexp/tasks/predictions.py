"""What a task predicts of one example, beside what is right; runs/predictions.py writes it to predictions.jsonl."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Prediction:
    """One example with what is right and what was predicted."""

    input: str | list[str]
    gold: str | list[str]
    guess: str | list[str]
    scores: dict[str, float] | list[float]
