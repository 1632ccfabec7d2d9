"""`python -m batch`: the same commands as `logstore batch`."""

import sys

from logstore.cli.main import main

if __name__ == "__main__":
    main(["batch", *sys.argv[1:]])
