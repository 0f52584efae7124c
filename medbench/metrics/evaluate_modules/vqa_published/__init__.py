"""The study's scoring."""
