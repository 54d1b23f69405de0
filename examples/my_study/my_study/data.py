"""Sentences that are made by a rule, so that no file is needed."""

from collections.abc import Iterator

WHO = ["the cat", "a dog", "my neighbour", "the old king", "nobody"]
DOES = ["sees", "likes", "follows", "paints", "forgets"]


def sentences(count: int = 500) -> Iterator[str]:
    """Yield `count` short texts."""
    for number in range(count):
        yield f"{number}: {WHO[number % 5]} {DOES[number // 5 % 5]} {WHO[number // 25 % 5]} on day {number % 7}."
