"""Expressions with the rows that they keep or the message that they give: what --where and the page's filter share.

`test_filters.py` runs them in Python. `tests/browser/test_one_grammar.py` runs them in both, and many more.
"""

import numpy as np
import pandas as pd

TABLE = pd.DataFrame(
    {
        "slug": pd.array(["gpt-l2-fp32", "gpt-l4-BF16", "moe-l4", "gpt-l8-bf16"], dtype="string"),
        "n_layers": pd.array([2, 4, None, 8], dtype="Int64"),
        "model.n_layers": pd.array([2, 4, 4, 8], dtype="Int64"),
        "precision": pd.array(["fp32", "bf16", None, "bf16"], dtype="string"),
        "optim.lr": [1e-3, 3e-4, np.nan, 1e-2],
        "schedule.end": [1, 2, 3, 4],
        "data.end": [1, 2, 3, 4],
        "score/tag/span_f1": [0.1, 0.2, np.nan, 0.4],
        "score/gsm8k/em,strict-match": [1.0, 2, 3, 4],
        "train_seconds": [1.0, np.inf, 3, 4],
        "tokens": [10, 20, 30, 5e9],
        "n_params": [1, 4, 3, 0.0],
        "exclusive": pd.array([True, False, None, True], dtype="boolean"),
        "energy_kwh": pd.Series([None] * 4, dtype=object),
        "class": [1, 2, 3, 4],
        "in": [1, 2, 3, 4],
        "D": [1, 2, 3, 4],
        "d": [4, 3, 2, 1],
    }
)

ROWS = [
    # comparisons, logic and arithmetic
    ("n_layers >= 4 and precision == 'bf16' and model.n_layers in [2,8]", [3]),
    ("score/tag/span_f1 > .15", [1, 3]),
    ("score/gsm8k/em,strict-match > 2", [2, 3]),
    ("`score/gsm8k/em,strict-match` > 2 or n_layers == 2", [0, 2, 3]),
    ("tokens / n_params >= 10", [0, 2]),
    ("tokens/n_params>=10", [0, 2]),
    ("2 <= n_layers < 8", [0, 1]),
    ("1 < n_layers <= model.n_layers == 4", [1]),
    ("-n_layers < -3", [1, 3]),
    ("n_layers - 2 - 1 > 0", [1, 3]),
    ("n_layers > 2 * (1 + 1) or n_layers == 16 / 2 / 4", [0, 3]),
    ("n_layers=2 or not n_layers=2", [0, 1, 3]),
    ("n_layers == 4 or precision is null and class == 3", [1, 2]),
    ("NOT (Precision = 'bf16')", [0]),
    ("class > 2", [2, 3]),
    ("`in` > 2", [2, 3]),
    ("D > 2", [2, 3]),
    ("d > 2", [0, 1]),
    ("true", [0, 1, 2, 3]),
    ("false or class == 1", [0]),
    # numbers
    ("tokens >= 5G", [3]),
    ("tokens == 5e9", [3]),
    ("tokens == 5B", [3]),
    ("tokens < 0.02k", [0]),
    ("tokens > 1_0", [1, 2, 3]),
    # texts, with quotes and without
    ("precision == 'bf16'", [1, 3]),
    ("precision == 'BF16'", []),
    ("precision = BF16", [1, 3]),
    ("precision != bf16", [0]),
    ("precision == \"it\\'s n_layers\"", []),
    ("precision >= 'c'", [0]),
    ("precision in [bf16, 'fp16']", [1, 3]),
    ("precision not in ('bf16',)", [0]),
    ("n_layers in (2)", [0]),
    ("n_layers not in [2, 2 * 2]", [3]),
    ("n_layers in []", []),
    ("'bf' in slug", [3]),
    ("bf in slug", [1, 3]),
    ("'bf' not in slug", [0, 1, 2]),
    # words alone
    ("gpt", [0, 1, 3]),
    ("GPT 'bf16'", [1, 3]),
    ("gpt-l4", [1]),
    ("gpt precision=bf16 n_layers<8", [1]),
    ("gpt (l2 or l8)", [0, 3]),
    ("not gpt", [2]),
    ("32", [0]),
    # null
    ("precision is null", [2]),
    ("precision is not None", [0, 1, 3]),
    ("precision == null", [2]),
    ("null != precision", [0, 1, 3]),
    ("precision != 'bf16'", [0]),
    ("n_layers not in [2]", [1, 3]),
    ("n_layers == 2 or precision is null", [0, 2]),
    ("energy_kwh > 3", []),
    ("energy_kwh == 'x' or energy_kwh = x", []),
    ("not energy_kwh", []),
    ("energy_kwh is null", [0, 1, 2, 3]),
    ("train_seconds is null", [1]),
    ("tokens / n_params is null", [3]),
    # true and false
    ("exclusive", [0, 3]),
    ("exclusive == false", [1]),
    ("exclusive is not true", [1]),
    ("not exclusive", [1]),
    ("exclusive in [true]", [0, 3]),
    # other names of columns
    ("lr >= 1e-3", [0, 3]),
    ("training_time > 3", [3]),
    ("OPTIM.LR < 1e-3", [1]),
]  # fmt: skip

ALLOWED = "allowed are names of columns, numbers, texts, comparisons, in, is, and, or, not, + - * /"
MESSAGES = [
    # names
    ("n_layer >= 4", "at 'n_layer >= 4' (character 1): there is no column 'n_layer'. Did you mean 'n_layers'?"),
    (
        "n_layers > 1 and score/tag/spn_f1 > 1",
        "at 'score/tag/spn_f1 > 1' (character 18): there is no column 'score/tag/spn_f1'. "
        "Did you mean 'score/tag/span_f1'?",
    ),
    ("gpt trainig_time < 3", "at 'trainig_time < 3' (character 5): there is no column 'trainig_time'. "
        "Did you mean 'training_time'?"),
    ("zzzzzz<3", "at 'zzzzzz<3' (character 1): there is no column 'zzzzzz'."),
    ("n_layers == many", "at 'many' (character 13): there is no column 'many'."),
    ("`bf16` == precision", "at '`bf16` == precision' (character 1): there is no column 'bf16'."),
    ("`bf16", "at '`bf16' (character 1): this name has no closing backquote"),
    ("end > 2", "at 'end > 2' (character 1): 'end' may mean schedule.end or data.end; write one of them"),
    # kinds
    ("precision == 16", "at '16' (character 14): precision is text, 16 is a number: these do not compare; write '16'"),
    ("n_layers == 'four'", "at ''four'' (character 13): n_layers is a number, 'four' is text: these do not compare"),
    ("exclusive == 1", "at '1' (character 14): exclusive is true or false, 1 is a number: these do not compare"),
    ("n_layers in [2, 'a']", "at ''a']' (character 17): n_layers is a number, 'a' is text: these do not compare"),
    ("n_layers", "at 'n_layers' (character 1): this is neither true nor false; a comparison is, as in n_layers >= 4"),
    ("not null", "at 'null' (character 5): this is neither true nor false; a comparison is, as in n_layers >= 4"),
    ("loss + 1", "at 'loss + 1' (character 1): there is no column 'loss'. Did you mean 'class'?"),
    ("class + precision > 1", "at 'precision > 1' (character 9): this is text, not a number"),
    ("-'a' < class", "at ''a' < class' (character 2): this is text, not a number"),
    ("1 == 1", "at '1 == 1' (character 1): neither side of this comparison is a column"),
    ("null == null", "at 'null == null' (character 1): neither side of this comparison is a column"),
    ("n_layers > null", "at 'n_layers > null' (character 1): null is neither more nor less than anything; "
        "write is null"),
    # lists and parts
    ("n_layers in 4", "at '4' (character 13): after `in` comes a list, as in ['fp32', 'bf16'], or a column of text"),
    ("2 in n_layers", "at 'n_layers' (character 6): after `in` comes a list, as in ['fp32', 'bf16'], "
        "or a column of text"),
    ("2 in [2]", "at '2 in [2]' (character 1): the left side of `in [...]` must be a column"),
    ("class in [null]", "at 'null]' (character 11): a list holds numbers or texts"),
    ("class in [2", "at '[2' (character 10): this bracket is not closed"),
    ("class in [2 3]", f"at '3]' (character 13): this is not allowed here; {ALLOWED}"),
    # signs
    ("class <", "at its end: something is missing, as in n_layers >= 4"),
    ("(class < 3", "at '(class < 3' (character 1): this parenthesis is not closed"),
    ("class < 3)", "at ')' (character 10): this parenthesis closes none"),
    ("class < 'a", "at ''a' (character 9): this text has no closing quote"),
    ("class ** 2 > 3", f"at '** 2 > 3' (character 7): this is not allowed here; {ALLOWED}"),
    ("class > 1 # 2", f"at '# 2' (character 11): this is not allowed here; {ALLOWED}"),
    ("class > 1 && class < 3", f"at '&& class < 3' (character 11): this is not allowed here; {ALLOWED}"),
    ("[1] == class", f"at '[1] == class' (character 1): this is not allowed here; {ALLOWED}"),
    ("__import__('os').system('touch /tmp/x')",
        f"at '__import__('os').sys' (character 1): this is not allowed here; {ALLOWED}"),
    ("(lambda: 1)() > class", f"at ') > class' (character 13): this is not allowed here; {ALLOWED}"),
    ("class.__class__ == 'x'", "at 'class.__class__ == '' (character 1): there is no column 'class.__class__'. "
        "Did you mean 'class'?"),
    # numbers, and limits
    ("1/0 > class", "at '0 > class' (character 3): a division by zero"),
    ("1e999 > class", "at '1e999 > class' (character 1): this number is too large"),
    ("1e308 * 10 > class", "at '1e308 * 10 > class' (character 1): this number is too large"),
    ("class > 1.2.3", "at '1.2.3' (character 9): there is no column '1.2.3'."),
    ("not " * 41 + "true", "at 'not true' (character 161): this is nested too deeply"),
    ("(" * 41, "at '(' (character 41): this is nested too deeply"),
    # characters beyond the first 65,536, and those that a terminal would obey
    ("'😀' < 'ü😀\x1b[31m' class",
        "at ''😀' < 'ü😀\ufffd[31m' clas' (character 1): neither side of this comparison is a column"),
    ("'😀' clas > 1", "at 'clas > 1' (character 5): there is no column 'clas'. Did you mean 'class'?"),
]  # fmt: skip
