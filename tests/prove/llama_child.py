"""Asked by a proof in an environment of its own: what llama.cpp makes of a GGUF file. One JSON object in, one out."""

from __future__ import annotations

import json
import sys


def main() -> None:
    import numpy as np
    from llama_cpp import Llama

    asked = json.load(sys.stdin)
    engine = Llama(
        asked["model"], n_ctx=asked.get("context", 512), n_threads=1, n_threads_batch=1, verbose=False,
        type_k=0, type_v=0, flash_attn=False, logits_all=True, n_batch=64,
    )  # fmt: skip
    said: dict[str, object] = {"template": engine.metadata.get("tokenizer.chat_template")}
    said["ids"] = [
        engine.tokenize(text.encode(), add_bos=False, special=special)
        for text, special in asked.get("texts", [])
    ]
    said["pieces"] = [engine.detokenize(ids, special=True).decode(errors="replace") for ids in asked.get("detokenize", [])]  # fmt: skip
    logits = []
    for ids in asked.get("rows", []):
        engine.reset()
        engine.eval(ids)
        logits.append(np.array(engine.scores[: len(ids)], dtype=np.float64).tolist())
    said["logits"] = logits
    replies = []
    for ids in asked.get("prompts", []):
        engine.reset()
        engine.eval(ids)
        reply, gaps = [], []
        for _ in range(asked["tokens"]):
            last = np.array(engine.scores[engine.n_tokens - 1])
            order = np.argsort(-last)
            gaps.append(float(last[order[0]] - last[order[1]]))
            reply.append(int(order[0]))
            if reply[-1] in asked["ends"]:
                break
            engine.eval([reply[-1]])
        replies.append([reply, gaps])
    said["replies"] = replies
    sys.stdout.write(json.dumps(said))


if __name__ == "__main__":
    main()
