"""The section of the configuration that says how a step is computed, and by whom. No torch."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from hone.config.base import Section
from hone.config.kinds import Count, Part, whole_from_text

Kernel = Literal["rms_norm", "activation"]


class ComputeSection(Section):
    """How a step is computed. Nothing here changes what is computed, beyond rounding."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the step is computed. `auto`: a GPU where one is here. Kept for the whole run where it is here again."""
    micro_batch_tokens: Count | Literal["auto"] = "auto"
    """Most tokens in one Pack (one forward and backward). `auto` takes what fits and is fastest here."""
    share_prefixes: bool = True
    """Whether rows of a step that begin alike share their beginning. False: for comparison."""
    pack: bool = True
    """Whether several rows stand in one Pack. False runs them one at a time: for comparison."""
    gradient_checkpointing: Literal["auto"] | bool | Part = "auto"
    """Recompute activations in the backward pass: less memory, about a third more time in the layers that do so. `auto`: as few layers as memory asks for; a number from 0 to 1: that share of the layers."""
    offload_activations: bool = False
    """Keep what the backward pass needs in the host's memory meanwhile, page-locked; layers are recomputed unless `gradient_checkpointing` says otherwise. For a GPU."""
    compile: Literal["auto"] | bool = "auto"
    """Compile the parts of each layer (torch.compile). `auto`: on a GPU, where the run is long enough to pay for the minute that it takes."""
    kernels: Literal["auto", "none", "rms_norm", "activation"] | list[Kernel] = "auto"
    """Fused kernels of liger-kernel on a GPU: all of them where nothing is compiled (`auto`), `none`, or these (`rms_norm`: norms, `activation`: SwiGLU and GeGLU)."""
    split_weights: Literal["auto"] | bool = "auto"
    """Hold weights that train whole in bf16 arithmetic as bfloat16 and the 16 bits that a float32 master has more: 4 bytes a weight instead of 6, no copies, the same AdamW update. `auto`: on a GPU."""
    deterministic: bool = True
    """On a GPU only kernels that give the same bits each time, so that a resumed run ends in the same weights. False: some attention kernels are faster."""
    threads: Count | Literal["auto"] = "auto"
    """CPU threads of the step, of each rank. `auto`: the cores this process may use, shared among the ranks of a machine. Kept for the whole run, since it changes the last bits."""
    nproc: Count | Literal["auto"] = "auto"
    """Ranks (processes that share each step) on this machine. `auto`: one for each visible GPU, one where there is none."""
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """How ranks hold the model. `ddp`: each holds all of it; `fsdp`: each a slice of every weight, gathered while it is needed. `auto`: ddp where that fits, else fsdp."""
    deepspeed: str | None = None
    """ZeRO through DeepSpeed instead of `strategy`: `zero1`, `zero2`, `zero3`, `zero2-offload`, `zero3-offload`, or a DeepSpeed JSON file, whose `auto` values are filled from here."""

    launcher: Literal["local", "ray"] = "local"
    """Who starts ranks. `local`: this command, on this machine. `ray`: a Ray cluster, wherever it has room; `nproc` is then the number of all ranks, and files must lie where all machines see them."""
    nnodes: Count = 1
    """Machines that train together. The same command is started on each, with its own `node_rank`; the run's folder must lie where all of them see it."""
    node_rank: Annotated[int, Field(ge=0), BeforeValidator(whole_from_text)] = 0
    """Which of the machines this is, from 0. The first one keeps the run's log and shows it."""
    rdzv_endpoint: str | None = None
    """HOST:PORT of the first machine, where ranks meet; a few ports after it are used where a run starts anew. The network between the machines must be a trusted one."""

    @model_validator(mode="after")
    def _one_strategy(self) -> Self:
        if self.deepspeed and self.strategy != "auto":
            raise ValueError("deepspeed and strategy exclude each other; remove one of them")
        return self

    @model_validator(mode="after")
    def _machines(self) -> Self:
        if self.nnodes == 1:
            return self
        if self.launcher == "ray":
            raise ValueError("Ray places ranks itself; remove nnodes, or set launcher=local")
        if self.rdzv_endpoint is None:
            raise ValueError(
                "several machines meet somewhere: set compute.rdzv_endpoint=HOST:PORT of the first one"
            )
        _, colon, port = self.rdzv_endpoint.rpartition(":")
        if not colon or not port.isdecimal() or not 0 < int(port) < 65_000:
            raise ValueError(
                f"rdzv_endpoint is {self.rdzv_endpoint!r}, not HOST:PORT (with a port below 65000)"
            )
        if self.node_rank >= self.nnodes:
            raise ValueError(
                f"node_rank is {self.node_rank}; of {self.nnodes} machines it goes from 0 to {self.nnodes - 1}"
            )
        return self
