"""One measured preparation of rows, in a process of its own: a job as JSON in, one line of JSON out.

It imports only what its side needs, since a peer may live in an environment of its own.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

Job = dict[str, Any]


def hone(job: Job) -> float:
    """Read, check, render, tokenize and store every row, or find them stored."""
    began = time.perf_counter()
    from hone.config.sections import DataSection
    from hone.data.prepare import prepare
    from hone.data.template import load_template
    from hone.data.tokenizer import TextTokenizer

    tokenizer = TextTokenizer.load(Path(job["model"]))
    prepared = prepare(
        DataSection(path=job["file"]),
        tokenizer=tokenizer,
        template=load_template(tokenizer),
        max_length=4096,
        cache_dir=Path(os.environ["HONE_CACHE"]) / "data",
        say=silent,
    )
    assert prepared.ledgers[0].kept == job["rows"], prepared.ledgers[0].sentence()
    seconds = time.perf_counter() - began
    prepared.close()
    return seconds


def first_step(job: Job) -> float:
    """From the command to the first finished step, as a user waits for it."""
    import subprocess

    with tempfile.TemporaryDirectory() as folder:
        words = [
            sys.executable, "-m", "hone", "train", job["file"], "--model", job["model"],
            "--output", f"{folder}/run", "--json", "train.max_steps=20", "train.save_steps=20",
        ]  # fmt: skip
        began = time.perf_counter()
        child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        seconds = float("nan")
        for line in child.stdout:
            if json.loads(line)["event"] == "step":
                seconds = time.perf_counter() - began
                break
        child.stdout.read()
        code = child.wait()
    assert code == 0, f"hone train left with {code}"
    return seconds


def alone(job: Job) -> float:
    """The tokenizer alone, on the rendered text of every row, which is not timed."""
    from hone.data.template import load_template
    from hone.data.tokenizer import TextTokenizer

    tokenizer = TextTokenizer.load(Path(job["model"]))
    template = load_template(tokenizer)
    texts: list[str] = []
    with Path(job["file"]).open(encoding="utf-8") as file:
        for line in file:
            texts.append(template.render(json.loads(line)["messages"]))
    if job["core"] == "tokenizers":
        from tokenizers import Tokenizer

        backend = Tokenizer.from_file(str(Path(job["model"]) / "tokenizer.json"))
        began = time.perf_counter()
        for first in range(0, len(texts), 4096):
            backend.encode_batch_fast(texts[first : first + 4096], add_special_tokens=False)
        return time.perf_counter() - began
    encoder = tokenizer.fast_encoder(None)
    assert encoder is not None
    plain = [text.replace("<|", "< |") for text in texts]  # it knows no added tokens
    began = time.perf_counter()
    for text in plain:
        encoder.encode(text)
    return time.perf_counter() - began


def trl(job: Job) -> float:
    """SFTTrainer's own preparation of a chat dataset, loading of the JSON included."""
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    model = AutoModelForCausalLM.from_pretrained(job["model"])
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    config = SFTConfig(
        output_dir=tempfile.mkdtemp(dir=job["folder"]),
        dataset_num_proc=job["workers"],
        max_length=4096,
        report_to="none",
        use_cpu=True,
        bf16=False,
    )
    began = time.perf_counter()
    data = load_dataset("json", data_files=job["file"], split="train")
    SFTTrainer(model=model, args=config, train_dataset=data, processing_class=tokenizer)
    return time.perf_counter() - began


def llamafactory(job: Job) -> float:
    """LLaMA-Factory's own preparation of the same rows, in its form of them, conversion not timed."""
    folder = Path(tempfile.mkdtemp(dir=job["folder"]))
    with (
        Path(job["file"]).open(encoding="utf-8") as source,
        (folder / "rows.jsonl").open("w") as to,
    ):
        for line in source:
            to.write(json.dumps({"messages": json.loads(line)["messages"]}) + "\n")
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant", "system_tag": "system"}  # fmt: skip
    about = {"file_name": "rows.jsonl", "formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": tags}  # fmt: skip
    (folder / "dataset_info.json").write_text(json.dumps({"rows": about}))
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_tokenizer

    settings = {
        "stage": "sft", "do_train": True, "model_name_or_path": job["model"], "dataset": "rows",
        "dataset_dir": str(folder), "template": "qwen", "finetuning_type": "lora", "cutoff_len": 4096,
        "preprocessing_num_workers": job["workers"], "output_dir": str(folder / "out"),
        "overwrite_cache": True, "report_to": "none",
    }  # fmt: skip
    model_args, data_args, training_args, *_ = get_train_args(settings)
    module = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(module["tokenizer"], data_args)
    began = time.perf_counter()
    get_dataset(template, model_args, data_args, training_args, stage="sft", **module)
    return time.perf_counter() - began


def silent(*_: object) -> None:
    """Hears events and says nothing."""


def peak_mib() -> int:
    """Most memory of this process or of one that it started. The kernel's figure for this process itself would
    count what its parent held when it was started."""
    with Path("/proc/self/status").open() as status:
        own = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    return max(own, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) // 1024


SIDES = {side.__name__: side for side in (hone, first_step, alone, trl, llamafactory)}


def main() -> None:
    """Do the job that was given."""
    job: Job = json.loads(sys.argv[1])
    seconds = SIDES[job["side"]](job)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    told = {
        "seconds": round(seconds, 3),
        "peak_mib": peak_mib(),
        "cpu_seconds": round(sum(one.ru_utime + one.ru_stime for one in used), 2),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main()
