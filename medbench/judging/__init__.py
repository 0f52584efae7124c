"""Judges of open answers: asking them, labels of people beside them, questions made from notes."""
