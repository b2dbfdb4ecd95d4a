"""What the numbers of single faces come to: tracks, events, baselines. Pure functions over published rows."""
