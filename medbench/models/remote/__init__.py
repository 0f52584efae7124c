"""Models that another machine runs: one file an endpoint, each with `answerer(source, change)` (`medbench.models.answering`)."""
