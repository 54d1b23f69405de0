"""What long work says about many runs or files stays short."""

from lmexp.messages import MAX_LINES, say_first


def test_of_many_lines_the_first_ones_are_said_and_where_the_others_are():
    said: list[str] = []
    lines = [f"line {n}" for n in range(MAX_LINES + 1200)]
    say_first(lines[:MAX_LINES], "the file has all", said.append)
    assert said == lines[:MAX_LINES]
    say_first(lines, "the file has all", said.append)
    assert said[MAX_LINES:] == [*lines[:MAX_LINES], "and 1,200 more; the file has all"]
