"""`python -m orchestrator.cli`: the same as `orchestrate`."""

import sys

from orchestrator.cli import main

sys.exit(main())
