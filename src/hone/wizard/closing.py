"""The end of every script: what was trained, and how to ask it with `openai` and `curl`. It knows no question.

The function that it writes takes everything from the model itself, so no answer of a user's stands in it.
"""

from __future__ import annotations

from typing import Final

_HEAD: Final = '''\
async def show_usage(model: {model}) -> None:
    """Say what was trained, and how to ask it."""
    step = await model.get_step()
    name = model.get_inference_name()
    client = model.openai_client()

    print("\\n" + "=" * 60)
    print("SFT TRAINING COMPLETE")
    print("=" * 60)
    print(f"  Model:          {{name}}")
    print(f"  Base model:     {{model.base_model}}")
    print(f"  Training step:  {{step}}")
    print(f"  Inference URL:  {{client.base_url}}")
'''
_TRACKED: Final = """\
    run = f"{model.project}/runs/{model.name}"
    print(f"  W&B run:        https://wandb.ai/<YOUR_TEAM>/{run}")
"""
_PYTHON: Final = """\
    print("=" * 60)

    print("\\n--- Python usage (openai SDK) ---\\n")
    print("{imports}from openai import OpenAI\\n")
    print("client = OpenAI(")
    print(f'    base_url="{{client.base_url}}",')
    print({key})
    print(")\\n")
    print("response = client.chat.completions.create(")
    print(f"    model={{json.dumps(name, ensure_ascii=False)}},")
    print("    messages=[")
    print('        {{"role": "user", "content": "Your prompt here"}},')
    print("    ],")
    print(")")
    print("print(response.choices[0].message.content)")
"""
_CURL: Final = """\

    body = {
        "model": name,
        "messages": [{"role": "user", "content": "Your prompt here"}],
    }
    print("\\n--- curl usage ---\\n")
    print(f"curl {client.base_url}chat/completions \\\\")
    print('  -H "Content-Type: application/json" \\\\')
"""
_CURL_KEY: Final = """\
    print('  -H "Authorization: Bearer ${key}" \\\\')
"""
_BODY: Final = """\
    print(f"  -d {shlex.quote(json.dumps(body, indent=2, ensure_ascii=False))}")
"""
_AGAIN: Final = """\

    print("\\n--- Serve it again, any time ---\\n")
    served = shlex.quote(f"{model.project}/{model.name}")
    print(f"hone serve {served} --port {client.base_url.port}")
"""
_NO_KEY: Final = "'    api_key=\"not-needed\",'"
_KEY: Final = "'    api_key=os.environ[\"{key}\"],'"


def closing(model: str, *, key: str | None, is_tracked: bool, is_ours: bool) -> str:
    """The function `show_usage`; `model` is what the script calls the class of its model.

    `key` is the variable that holds the key of a service: snippets read it from the environment, and no key is ever
    printed. None: this machine serves. `is_tracked`: the run is followed by Weights & Biases. `is_ours`: the script is
    for Hone, whose `hone serve` makes the snippets work again.
    """
    parts = [_HEAD.format(model=model)]
    if is_tracked:
        parts.append(_TRACKED)
    imports = "import os\\n\\n" if key else ""
    parts.append(_PYTHON.format(imports=imports, key=_KEY.format(key=key) if key else _NO_KEY))
    parts.append(_CURL)
    if key:
        parts.append(_CURL_KEY.format(key=key))
    parts.append(_BODY)
    if is_ours and not key:
        parts.append(_AGAIN)
    return "".join(parts)
