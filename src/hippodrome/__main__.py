"""`python -m hippodrome`: the command line, where the script of that name is not on the PATH."""

from hippodrome.cli import main

if __name__ == "__main__":
    main()
