"""How fast data.clean.pii searches a text, and what it finds there, on one CPU core.

python benchmarks/pii.py [FILE, the standard library's sources by default]
"""

import sys
import time
from pathlib import Path

from lmexp.config.data import CleanConfig, StdlibData
from lmexp.data.pii import PersonalData
from lmexp.data.sources import documents

CASES: list[dict[str, object]] = [
    {"pii": ["email"]},
    {"pii": ["ip"]},
    {"pii": ["phone"]},
    {"pii": ["phone"], "pii_region": "US"},
    {"pii": ["key"]},
    {"pii": ["email", "ip", "phone", "key"], "pii_region": "US"},
    {"pii": ["CREDIT_CARD", "IBAN_CODE", "US_SSN"]},
]

if __name__ == "__main__":
    texts = (
        [Path(sys.argv[1]).read_text(encoding="utf-8")]
        if len(sys.argv) > 1
        else [text for _, text in documents(StdlibData(source="stdlib"))]
    )
    size = sum(len(text.encode()) for text in texts)
    print(f"{size / 1e6:.1f} MB, {sum(text.count(chr(10)) for text in texts):,} lines")
    for case in CASES:
        finder = PersonalData(CleanConfig.model_validate(case))
        start = time.process_time()
        for text in texts:
            finder.replaced(text)
        seconds = time.process_time() - start
        print(f"{case}: {size / 1e6 / seconds:.1f} MB/s, found {dict(finder.count)}")
