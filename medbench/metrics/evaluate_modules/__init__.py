"""Scorings of answers as modules of Hugging Face `evaluate`: one folder each, which `evaluate.load(folder)` loads without medbench."""
