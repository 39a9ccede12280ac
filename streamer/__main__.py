"""``python -m streamer``: the same as the command ``streamer``."""

import sys

from streamer.cli import main

sys.exit(main())
