"""How each mode answers the test split: one module a method, `predict(params, dataset, model, mode)` -> the predictions table."""
