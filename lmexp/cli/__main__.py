"""`python -m lmexp.cli` is `lmexp`."""

from lmexp.cli import main

if __name__ == "__main__":
    main()
