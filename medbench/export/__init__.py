"""What a lab carries away of an adapted cell: its weights, how to use them, and a model card."""
