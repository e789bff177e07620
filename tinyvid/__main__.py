"""`python -m tinyvid`: the command line."""

from tinyvid.cli import main

if __name__ == "__main__":
    main()
