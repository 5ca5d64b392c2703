"""Rows that are not JSONL yet: tables, folders and hub datasets become one strict JSONL file in the cache.

Only this room may load pyarrow, datasets and (beside models/) huggingface_hub, and only when rows ask for it.
"""
