"""Documents to rows of plain text: files read, cut by paragraph, without duplicates. It knows no model and no tokenizer."""
