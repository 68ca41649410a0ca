"""Sample pictures during training: the file of prompts, the samplers, the drawing."""
