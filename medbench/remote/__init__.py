"""Asking endpoints: requests, answers that are kept and never paid twice, limits. Knows nothing of data sets, models or cells."""
