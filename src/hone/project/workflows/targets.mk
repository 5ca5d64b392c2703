# The targets of a project, each one command of Hone's. Settings follow as SECTION_KEY=value, e.g.
# make train CONFIG=configs/run_bnb.yaml TRAIN_LEARNING_RATE=1e-4 MODEL_NAME=Qwen/Qwen3-0.6B

SHELL := /bin/bash
HONE ?= hone
CONFIG ?= configs/run_bnb.yaml
STYLE ?= Answer in two lines at most: first the answer, then the reason.
TB_PORT ?= 6006
TB_LOGDIR ?= outputs
NUM_GPUS ?=
DEEPSPEED_CONFIG ?= zero2
LIMIT ?= 512
INPUT_FILE ?=
RUN ?=
FRESH ?=

ours := FRESH HONE CONFIG STYLE TB_PORT TB_LOGDIR NUM_GPUS DEEPSPEED_CONFIG LIMIT INPUT_FILE RUN ARGS PYTHON READY SHELL
said := $(filter-out $(ours) -%,$(foreach name,$(.VARIABLES),$(if $(filter command%,$(origin $(name))),$(name))))
quoted = '$(subst ','\'',$(1))'
# What was said on make's command line, each as one word of the shell whatever is in it.
settings = $(foreach name,$(said),$(call quoted,$(name)=$(value $(name))))$(if $(FRESH), --fresh)
refused = $(if $(said),$(error $(said): only the train targets and dapt-train take settings; see make help))
config = $(call quoted,$(CONFIG))
run = $(if $(RUN),$(call quoted,$(RUN)),"$$($(HONE) config get output.dir $(config))")
held_out = "$$($(HONE) config get data.validation_path $(config))"
test_rows = "$$(dirname -- $(held_out))/test.jsonl"
gpus = $(or $(NUM_GPUS),$(shell nvidia-smi -L 2>/dev/null | grep -c '^GPU'))
# A rank for each GPU; two on the CPU where there is none.
ranks = $(if $(filter-out 0,$(gpus)),$(gpus),2)
board = $(HONE) tensorboard start --logdir $(call quoted,$(TB_LOGDIR)) --port $(TB_PORT)

project := process style render full-pipeline train train-bnb train-bnb-tb train-unsloth train-unsloth-tb \
	train-distributed train-distributed-tb train-deepspeed train-deepspeed-tb tensorboard tb-stop eval eval-quick \
	eval-val eval-test eval-full infer infer-interactive infer-batch merge merge-bf16 memory-check check-data \
	dapt-docx dapt-train
.PHONY: $(project) project-help

project-help:
	@echo "rows     process, style (STYLE=\"…\"), render, full-pipeline, check-data"
	@echo "train    train (CONFIG=…), train-bnb, train-unsloth, train-distributed, train-deepspeed; each with -tb for TensorBoard"
	@echo "         settings follow as SECTION_KEY=value: TRAIN_LEARNING_RATE=1e-4 MODEL_NAME=…"
	@echo "         the same command resumes its run; FRESH=1 begins it anew"
	@echo "watch    tensorboard (TB_PORT=$(TB_PORT)), tb-stop, memory-check"
	@echo "look     eval, eval-quick, eval-val, eval-test, eval-full (RUN=…), infer, infer-interactive, infer-batch (INPUT_FILE=…)"
	@echo "ship     merge, merge-bf16"
	@echo "domain   dapt-docx (documents of data/raw to rows), dapt-train"

process: $(READY)
	$(refused)$(HONE) process --force

style: $(READY)
	$(refused)$(HONE) style --style $(call quoted,$(STYLE)) --force

render: $(READY)
	@mkdir -p data/rendered
	$(HONE) preview $(config) $(foreach name,$(said),$(call quoted,$(name)=$(value $(name)))) --rows 50 --html data/rendered/train.html

full-pipeline: $(READY)
	$(refused)$(HONE) process --force
	$(if $(filter command%,$(origin STYLE)),$(HONE) style --style $(call quoted,$(STYLE)) --force,@:)
	$(HONE) validate data/processed/train.jsonl

train: $(READY)
	$(HONE) train $(config) $(settings)

train-bnb: $(READY)
	$(HONE) train configs/run_bnb.yaml $(settings)

train-unsloth: $(READY)
	$(HONE) train configs/run_unsloth.yaml $(settings)

train-bnb-tb: $(READY)
	$(board)
	$(HONE) train configs/run_bnb.yaml $(settings) logging.backend=tensorboard

train-unsloth-tb: $(READY)
	$(board)
	$(HONE) train configs/run_unsloth.yaml $(settings) logging.backend=tensorboard

train-distributed: $(READY)
	$(HONE) train $(config) --nproc $(ranks) $(settings)

train-distributed-tb: $(READY)
	$(board)
	$(HONE) train $(config) --nproc $(ranks) $(settings) output.trackers=[tensorboard]

train-deepspeed: $(READY)
	$(HONE) train $(config) --nproc $(ranks) --deepspeed $(call quoted,$(DEEPSPEED_CONFIG)) $(settings)

train-deepspeed-tb: $(READY)
	$(board)
	$(HONE) train $(config) --nproc $(ranks) --deepspeed $(call quoted,$(DEEPSPEED_CONFIG)) $(settings) output.trackers=[tensorboard]

tensorboard: $(READY)
	$(refused)$(board)

tb-stop: $(READY)
	$(refused)$(HONE) tensorboard stop

eval eval-val: $(READY)
	$(refused)$(HONE) evaluate $(run) $(held_out) --limit $(LIMIT) --force

eval-quick: $(READY)
	$(refused)$(HONE) evaluate $(run) $(held_out) --limit 200 --force

eval-full: $(READY)
	$(refused)$(HONE) evaluate $(run) $(held_out) --force

eval-test: $(READY)
	$(refused)$(HONE) evaluate $(run) $(test_rows) --limit $(LIMIT) --force

infer infer-interactive: $(READY)
	$(refused)$(HONE) infer $(run)

infer-batch: $(READY)
	$(refused)$(HONE) infer $(run) $(if $(INPUT_FILE),--input $(call quoted,$(INPUT_FILE)),--batch-file) --output outputs/preds --force

merge: $(READY)
	$(refused)$(HONE) merge $(run) --to outputs/merged_fp16 --dtype fp16

merge-bf16: $(READY)
	$(refused)$(HONE) merge $(run) --to outputs/merged_bf16 --dtype bf16

memory-check: $(READY)
	$(refused)$(HONE) doctor memory gpu

check-data: $(READY)
	$(refused)$(HONE) validate data/processed/train.jsonl

dapt-docx: $(READY)
	$(refused)$(HONE) documents data/raw --to data/processed/cpt.jsonl --force

dapt-train: $(READY)
	$(HONE) train configs/run_dapt.yaml $(settings)
