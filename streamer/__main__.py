"""Makes ``python -m streamer`` do the same as the command ``streamer``."""

import sys

from streamer.cli.main import main

sys.exit(main())
