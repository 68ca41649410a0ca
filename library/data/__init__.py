"""From folders of images and captions to batches."""
