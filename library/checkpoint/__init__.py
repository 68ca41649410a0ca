"""What a run leaves behind: weights, states, metadata, names, and how they reach the disk whole."""
