"""What a client asks for, made into the files and the command of a training."""
