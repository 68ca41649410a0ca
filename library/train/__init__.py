"""From a config to a saved file: builds the pieces, runs the one loop, reacts to what is due."""
