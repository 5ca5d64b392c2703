"""How a model's answers are asked for, judged and shown; `recipes/evaluate.py` composes it."""
