"""What the tools in finetune/ are made of: captions, tags and metadata files, prepared before training."""
