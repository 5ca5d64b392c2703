"""Stands in for `vllm serve`: the endpoints that Hone asks, over HTTP, answering by a rule that a test can check.

A reply to prompt ids is the model's name, spelled letter by letter. What it was asked is written to `FAKE_VLLM_LOG`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LOG = Path(os.environ["FAKE_VLLM_LOG"])
KEY = os.environ["VLLM_API_KEY"]


def note(**told: Any) -> None:
    with LOG.open("a", encoding="utf-8") as file:
        file.write(json.dumps(told) + "\n")


class Answers(BaseHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Nothing on the screen."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        note(path=self.path, body=body, key=self.headers["authorization"] == f"Bearer {KEY}")
        if self.path == "/v1/load_lora_adapter":
            fits = (Path(body["lora_path"]) / "adapter_config.json").is_file()
            self.send_response(200 if fits else 400)
            self.end_headers()
            self.wfile.write(b'{"error": {"message": "no such adapter"}}')
            return
        self.send_response(200)
        self.end_headers()
        if body["max_tokens"] == 13:  # breaks off
            self.say({"choices": [{"text": "half", "token_ids": [1]}]})
            return
        for place, letter in enumerate(body["model"][:4]):
            time.sleep(0.3 if body["max_tokens"] == 99 else 0.0)
            chances = {
                "tokens": [f"token_id:{place}"],
                "token_logprobs": [-0.5],
                "top_logprobs": [{f"token_id:{place}": -0.5, "token_id:9": -1.5}],
            }
            told = {"text": letter, "token_ids": [place], "logprobs": chances}
            try:
                self.say({"choices": [told]})
            except OSError:
                note(path="gone")
                return
        self.say({"choices": [{"text": "", "token_ids": [2], "finish_reason": "stop"}]})
        self.wfile.write(b"data: [DONE]\n\n")

    def say(self, told: Any) -> None:
        self.wfile.write(f"data: {json.dumps(told)}\n\n".encode())
        self.wfile.flush()


def main() -> None:
    words = sys.argv[1:]
    note(path="start", words=words, lora=os.environ.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING"))
    if os.environ.get("FAKE_VLLM_FAILS"):
        sys.exit(3)
    port = int(words[words.index("--port") + 1])
    ThreadingHTTPServer(("127.0.0.1", port), Answers).serve_forever()


if __name__ == "__main__":
    main()
