"""What launch.py does. Standard library only: it runs where nothing is set up yet, and sets everything up."""
