"""The job service: the OpenAI fine-tuning API on own hardware."""
