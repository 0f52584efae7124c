"""The strict scoring."""
