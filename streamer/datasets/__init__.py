"""What is done with collected samples: export, verification, statistics and split."""
