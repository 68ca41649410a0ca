"""The training service: other people's job APIs, on this project's scripts. Of ours it imports library.config and library.errors only."""
