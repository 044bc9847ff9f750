"""Tools to see inside a model: where its heads attend, and what each part contributes to a prediction."""
