"""The embedded demo: procedurally drawn diagnosis phantoms and mini models that are pretrained on the spot."""
