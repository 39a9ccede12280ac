"""The sampling process, which keeps frames worth labelling and feeds drift windows, and the way to it from
the workers."""
