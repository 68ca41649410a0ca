"""What the claims about learning, speed and safety are measured with: scripts to be run, and what they share."""
