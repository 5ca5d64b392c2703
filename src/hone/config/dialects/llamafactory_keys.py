"""LLaMA-Factory's keys beside transformers' own, in tables: what is ours under another name, what has no object here,
what is refused. It reads nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from hone.config.dialects.foreign import Refusal

SETTINGS: Final[Mapping[str, str]] = {
    "model_name_or_path": "model.name",
    "max_samples": "data.max_rows",
    "early_stopping_steps": "train.early_stop",
    "loraplus_lr_ratio": "train.lora_plus_ratio",
}
"""Keys that are settings of ours under another name."""

ADAPTER: Final[Mapping[str, str]] = {
    "lora_dropout": "tuning.lora.dropout",
    "use_rslora": "tuning.lora.rslora",
    "use_dora": "tuning.lora.dora",
}
"""Settings of adapters, for finetuning_type lora."""

_KERNEL: Final = "the attention kernel follows from the device and the rows, with the same result"
_SPEED: Final = (
    "it makes steps faster and changes no result; what is fast here is chosen by the run"
)
_REPLIES: Final = (
    "it is about replies, not training; `hone chat` and `hone serve` have such settings"
)
_PICTURES: Final = "rows of text have no pictures, films or sounds"
_PREPARES: Final = "rows are prepared ahead of training by as many processes as fit (data.workers)"
_CACHE: Final = "prepared rows are cached by content, so that nothing stale is ever used"
_ABOUT: Final = "it belongs to a method that is switched off"

IDLE: Final[Mapping[str, str]] = {
    "trust_remote_code": "no code of a model's folder is ever run; a model that needs it is refused as it loads",
    "flash_attn": _KERNEL,
    "use_unsloth": _SPEED,
    "use_unsloth_gc": _SPEED,
    "use_v1_kernels": _SPEED,
    "upcast_layernorm": "norms are computed in float32 as each family has it",
    "upcast_lmhead_output": "logits are always raised to float32",
    "use_fast_tokenizer": "the tokenizer is always the fast one",
    "split_special_tokens": "text of a message never becomes a control token",
    "low_cpu_mem_usage": "weights are read into their places",
    "resize_vocab": "embeddings grow with model.new_tokens by themselves",
    "cache_dir": "the hub's own folder is used (HF_HOME)",
    "offload_folder": "weights are never put on the disk",
    "use_kv_cache": _REPLIES,
    "infer_backend": _REPLIES,
    "infer_dtype": _REPLIES,
    "print_param_status": "`hone plan` counts what trains",
    "media_dir": _PICTURES,
    "image_max_pixels": _PICTURES,
    "image_min_pixels": _PICTURES,
    "image_do_pan_and_scan": _PICTURES,
    "crop_to_patches": _PICTURES,
    "video_max_pixels": _PICTURES,
    "video_min_pixels": _PICTURES,
    "video_fps": _PICTURES,
    "video_maxlen": _PICTURES,
    "use_audio_in_video": _PICTURES,
    "audio_sampling_rate": _PICTURES,
    "freeze_vision_tower": _PICTURES,
    "freeze_multi_modal_projector": _PICTURES,
    "preprocessing_num_workers": _PREPARES,
    "preprocessing_batch_size": _PREPARES,
    "buffer_size": "an epoch's order is drawn over all rows",
    "overwrite_cache": _CACHE,
    "data_shared_file_system": _CACHE,
    "ignore_pad_token_for_loss": "nothing is padded",
    "plot_loss": "the curve is always kept in the run's folder",
    "compute_accuracy": "held-out rows give a loss; `hone evaluate` scores answers",
    "eval_num_beams": _REPLIES,
    "eval_on_each_dataset": "held-out losses are told by source",
    "include_effective_tokens_per_second": "tokens a second are always told",
    "loraplus_lr_embedding": "adapters stand on no embedding",
    "pissa_convert": "what an initialisation takes out of the base is put back when the adapter is saved",
    "create_new_adapter": "an adapter that is named is trained further, and another run begins another",
    "quantization_device_map": "the whole model lies on the device of its rank",
    "vllm_maxlen": _REPLIES,
    "vllm_gpu_util": _REPLIES,
    "vllm_enforce_eager": _REPLIES,
    "vllm_max_lora_rank": _REPLIES,
    "vllm_config": _REPLIES,
    "sglang_maxlen": _REPLIES,
    "sglang_mem_fraction": _REPLIES,
    "sglang_tp_size": _REPLIES,
    "sglang_config": _REPLIES,
    "sglang_lora_backend": _REPLIES,
    "do_sample": _REPLIES,
    "temperature": _REPLIES,
    "top_p": _REPLIES,
    "top_k": _REPLIES,
    "num_beams": _REPLIES,
    "max_length": _REPLIES,
    "max_new_tokens": _REPLIES,
    "repetition_penalty": _REPLIES,
    "length_penalty": _REPLIES,
    "skip_special_tokens": _REPLIES,
    "do_eval": "held-out rows are gone through while it trains",
    "master_addr": "ranks meet at compute.rdzv_endpoint",
    "master_port": "ranks meet at compute.rdzv_endpoint",
    "enable_torch_profiler": "steps are timed in the run's events",
    "galore_target": _ABOUT,
    "galore_rank": _ABOUT,
    "galore_update_interval": _ABOUT,
    "galore_scale": _ABOUT,
    "galore_proj_type": _ABOUT,
    "galore_layerwise": _ABOUT,
    "apollo_target": _ABOUT,
    "apollo_rank": _ABOUT,
    "apollo_update_interval": _ABOUT,
    "apollo_scale": _ABOUT,
    "apollo_proj": _ABOUT,
    "apollo_proj_type": _ABOUT,
    "apollo_scale_type": _ABOUT,
    "apollo_layerwise": _ABOUT,
    "apollo_scale_front": _ABOUT,
    "badam_mode": _ABOUT,
    "badam_start_block": _ABOUT,
    "badam_switch_mode": _ABOUT,
    "badam_switch_interval": _ABOUT,
    "badam_update_ratio": _ABOUT,
    "badam_mask_mode": _ABOUT,
    "badam_verbose": _ABOUT,
    "asft_alpha": _ABOUT,
    "eaft_alpha": _ABOUT,
    "oft_rank": _ABOUT,
    "oft_block_size": _ABOUT,
    "oft_target": _ABOUT,
    "module_dropout": _ABOUT,
    "fp8_backend": _ABOUT,
    "fp8_enable_fsdp_float8_all_gather": _ABOUT,
    "swanlab_project": _ABOUT,
    "swanlab_workspace": _ABOUT,
    "swanlab_run_name": _ABOUT,
    "swanlab_mode": _ABOUT,
    "swanlab_logdir": _ABOUT,
}
"""Keys whose object is absent here, with the reason."""

_OTHER_OPTIMIZER: Final = (
    "remove it; optim: adamw_8bit or paged_adamw_8bit saves memory too, lora more"
)
_PREFERENCES: Final = Refusal(
    "it belongs to preference training, which Hone does not do",
    "remove it; Hone does stage: sft and stage: pt",
)
_MERGES: Final = Refusal(
    "this file is for `llamafactory-cli export`, which merges",
    "use `hone merge`, then `hone export`",
)
_SECRET: Final = Refusal(
    "a secret has no place in a file", "set it in the environment, and remove it here"
)
_EXPERTS: Final = Refusal("KTransformers is not used here", "remove it")

REFUSED: Final[Mapping[str, Refusal]] = {
    "use_galore": Refusal("GaLore is not offered", _OTHER_OPTIMIZER),
    "use_apollo": Refusal("APOLLO is not offered", _OTHER_OPTIMIZER),
    "use_badam": Refusal(
        "BAdam is not offered", f"{_OTHER_OPTIMIZER}; finetuning_type: freeze trains some layers"
    ),
    "use_adam_mini": Refusal("Adam-mini is not offered", _OTHER_OPTIMIZER),
    "use_asft_loss": Refusal("the ASFT loss is not offered", "use_dft_loss: true is the nearest"),
    "use_eaft_loss": Refusal("the EAFT loss is not offered", "use_dft_loss: true is the nearest"),
    "use_llama_pro": Refusal(
        "expanded blocks (LLaMA Pro) are not known here",
        "remove it; freeze_trainable_layers trains the last layers, lora_target names modules",
    ),
    "use_mca": Refusal(
        "Megatron is not used here", "remove it; see compute.strategy and deepspeed"
    ),
    "use_hyper_parallel": Refusal(
        "HyperParallel is not used here", "remove it; see compute.strategy"
    ),
    "hyper_parallel_args": Refusal(
        "HyperParallel is not used here", "remove it; see compute.strategy"
    ),
    "use_kt": _EXPERTS,
    "kt_weight_path": _EXPERTS,
    "kt_expert_checkpoint_path": _EXPERTS,
    "kt_use_lora_experts": _EXPERTS,
    "kt_lora_expert_num": _EXPERTS,
    "kt_lora_expert_intermediate_size": _EXPERTS,
    "use_swanlab": Refusal(
        "SwanLab is not told here", "report_to: wandb, tensorboard, trackio or mlflow"
    ),
    "swanlab_api_key": _SECRET,
    "swanlab_lark_webhook_url": _SECRET,
    "swanlab_lark_secret": _SECRET,
    "hf_hub_token": _SECRET,
    "ms_hub_token": _SECRET,
    "om_hub_token": _SECRET,
    "mixture_of_depths": Refusal("mixture of depths is not offered", "remove it"),
    "shift_attn": Refusal(
        "shifted sparse attention changes what is computed", "remove it; rows are never padded"
    ),
    "rope_scaling": Refusal(
        "the model's own positions are used",
        "write rope_parameters into the model's config.json, and remove it",
    ),
    "moe_aux_loss_coef": Refusal(
        "the router's own loss is switched off while a mixture of experts is tuned",
        "remove it, or write 0",
        unless=(None, False, 0, 0.0),
    ),
    "train_from_scratch": Refusal("training starts from a model's weights", "remove it"),
    "new_special_tokens_config": Refusal(
        "descriptions of new tokens are not read",
        "add_special_tokens names them, separated by commas",
    ),
    "pure_bf16": Refusal(
        "weights kept in bfloat16 alone lose small updates; they are float32 here",
        "write bf16: true instead",
    ),
    "fp8": Refusal("arithmetic in 8 bits is not offered", "write bf16: true instead"),
    "freeze_language_model": Refusal("models of text have nothing else to train", "remove it"),
    "do_predict": Refusal(
        "training writes no predictions", "use `hone evaluate` or `hone infer` after it"
    ),
    "predict_with_generate": Refusal(
        "held-out rows give a loss", "use `hone evaluate` or `hone infer` after training"
    ),
    "tool_format": Refusal(
        "calls are written as the template has it", "remove it, or name a template"
    ),
    "default_system": Refusal(
        "a system text belongs into the rows", "remove it; `hone style` puts one into every row"
    ),
    "preserve_thinking": Refusal(
        "each trained turn is seen as inference will see it", "remove it, or name a template file"
    ),
    "tokenized_path": Refusal(
        "rows are prepared anew and cached by content", "remove it, and name dataset"
    ),
    "adapter_folder": Refusal(
        "it is joined to adapter_name_or_path there", "write the whole path there"
    ),
    "ray_init_kwargs": Refusal(
        "a Ray cluster is found by its own environment", "set RAY_ADDRESS, and remove it"
    ),
    "export_dir": _MERGES,
    "export_size": _MERGES,
    "export_device": _MERGES,
    "export_legacy_format": Refusal(_MERGES.reason, _MERGES.remedy, unless=(None,)),
    "export_quantization_bit": _MERGES,
    "export_quantization_dataset": _MERGES,
    "export_quantization_nsamples": _MERGES,
    "export_quantization_maxlen": _MERGES,
    "export_hub_model_id": _MERGES,
    "pref_beta": _PREFERENCES,
    "pref_ftx": _PREFERENCES,
    "pref_bco_weight": _PREFERENCES,
    "pref_loss": _PREFERENCES,
    "dpo_label_smoothing": _PREFERENCES,
    "kto_chosen_weight": _PREFERENCES,
    "kto_rejected_weight": _PREFERENCES,
    "simpo_gamma": _PREFERENCES,
    "ppo_buffer_size": _PREFERENCES,
    "ppo_epochs": _PREFERENCES,
    "ppo_score_norm": _PREFERENCES,
    "ppo_target": _PREFERENCES,
    "ppo_whiten_rewards": _PREFERENCES,
    "ref_model": _PREFERENCES,
    "ref_model_adapters": _PREFERENCES,
    "ref_model_quantization_bit": _PREFERENCES,
    "reward_model": _PREFERENCES,
    "reward_model_adapters": _PREFERENCES,
    "reward_model_quantization_bit": _PREFERENCES,
    "reward_model_type": _PREFERENCES,
    "ld_alpha": _PREFERENCES,
}
"""Keys that would change the result, or that mean another task."""

EXTRA: Final = (
    "stage", "do_train", "finetuning_type", "lora_rank", "lora_alpha", "lora_target", "additional_target",
    "pissa_init", "pissa_iter", "freeze_trainable_layers", "freeze_trainable_modules",
    "freeze_extra_modules", "adapter_name_or_path", "model_revision", "quantization_bit",
    "quantization_method", "quantization_type", "double_quantization", "add_tokens", "add_special_tokens",
    "init_special_tokens", "disable_gradient_checkpointing", "use_muon", "use_dft_loss", "template",
    "enable_thinking", "cutoff_len", "train_on_prompt", "mask_history", "packing", "neat_packing",
    "disable_shuffling", "dataset", "eval_dataset", "dataset_dir", "val_size", "streaming", "mix_strategy",
    "interleave_probs", "ray_num_workers",
)  # fmt: skip
"""Keys that are read by what they mean."""

TEMPLATES: Final[Mapping[str, str]] = {
    "alpaca": "alpaca",
    "chatml": "chatml",
    "default": "human",
    "gemma": "gemma",
    "gemma2": "gemma",
    "llama2": "llama2",
    "llama3": "llama3",
    "mistral": "mistral",
    "phi": "phi",
    "qwen": "qwen",
    "qwen3": "qwen3",
    "qwen3_nothink": "qwen3_nothink",
}
"""Templates that both systems have, and what ours is called."""

DIFFERS: Final[Mapping[str, str]] = {
    "alpaca": "a system text is followed by a blank line here, and rows with tool calls are left out and counted",
    "default": "rows with tool calls are left out and counted",
    "llama3": "tools are told before the first question, as Llama 3.1 has it; LLaMA-Factory puts them and today's date "
    "into the system text",
    "chatml": "tool calls are written in tags, as Qwen has them; LLaMA-Factory writes them as Action and Action Input",
    "llama2": "a space stands before and after each reply, as Llama 2 was trained; LLaMA-Factory writes none",
    "mistral": "white space around replies follows the tokenizer's own kind of template",
    "qwen3": "each trained turn is learned as inference will see it; LLaMA-Factory writes an empty think block "
    "into every reply that has none, and learns it",
}
"""What a template of the same name does otherwise there."""
