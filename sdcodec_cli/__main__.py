"""`python -m sdcodec_cli` is `sdc`."""

from .cli.app import main

if __name__ == "__main__":
    main()
