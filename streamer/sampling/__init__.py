"""Active learning: the sampling process, which keeps frames worth labelling and watches for drift.

Belongs here: what workers do to send it sample candidates and requests, shadow runs, the selection of
samples, the spool, delivery to the store, and the drift service that runs in this process. Does not belong
here: drift's own computations (`streamer.drift`) and everything that is done with collected samples
(`streamer.datasets`).
"""
