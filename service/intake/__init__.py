"""What comes from outside and is trusted in nothing: archives, pictures, addresses."""
