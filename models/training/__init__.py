"""Training of the default code detectors: synthesis, network, training, evaluation, export."""
