"""The `certjax` command: parse, call, exit.

Exit codes: 0 complete, 2 usage or input, 3 an audit found a contradiction, 75 stopped by SIGTERM
(the same command continues), 130 Ctrl-C.
"""

from certjax.cli._main import main

__all__ = ['main']
