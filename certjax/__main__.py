"""`python -m certjax`: the same as the `certjax` command."""

import sys

from certjax.cli import main

sys.exit(main())
