"""Chat completions over HTTP as the OpenAI API has them, over any `Writer`. It knows no training."""
