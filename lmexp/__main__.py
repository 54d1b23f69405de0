"""`python -m lmexp` is the command `lmexp`, of this Python and of the package that it imports."""

from lmexp.cli import main

if __name__ == "__main__":
    main()
