"""`python -m wanray`: the command line, for where only the package is at hand and no script of it."""

from wanray.cli import main

if __name__ == "__main__":
    main()
