"""The APIs that clients know, as views of the jobs: each speaks one protocol, and decides nothing."""
