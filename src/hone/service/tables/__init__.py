"""The tables of the store, a kind of record each."""
