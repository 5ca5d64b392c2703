"""Where ART's scripts look for what feeds `train_sft`."""
