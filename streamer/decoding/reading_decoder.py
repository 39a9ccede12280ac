"""Fork server of image decoders that also read printed codes; services with `READ_CODES` run it.

It imports zxing-cpp before it forks, so that the decoders share its memory, and no other process loads it.
"""

from __future__ import annotations

import sys
from functools import partial

from streamer.decoding import decoder
from streamer.decoding.fork_server import serve
from streamer.imaging.code_symbols import read_symbols, warm_up

if __name__ == "__main__":
    decoder.warm_up()
    warm_up()
    sys.exit(serve(partial(decoder.run, read_symbols=read_symbols)))
