"""`python -m hone` is the `hone` command."""

import sys

from hone.cli.main import main

sys.exit(main())
