"""Weights: where they are, how they load, how they attend. It knows no rows."""

import logging

# PEFT imports bitsandbytes where it is installed, which then says what optional kernels it did not find.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
