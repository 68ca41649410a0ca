"""What is trained: each method attaches to the parts of a model and knows what to export."""
