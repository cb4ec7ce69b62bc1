"""A served model for evaluation harnesses: lm_eval.py for lm-evaluation-harness,
inspect.py for Inspect. Each needs its own extra."""
