"""Jobs: their states, the board on which they stand, and the worker that drives them."""
