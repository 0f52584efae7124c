"""How each mode answers the test split: one module a method, `predict(params, dataset, model, mode, work)` -> the predictions table."""
