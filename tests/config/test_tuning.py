"""Settings of the tuning methods: which go together, which are refused, and which have no effect."""

from __future__ import annotations

import pytest

from hone.config.layers import idle_settings, resolve
from hone.config.write import to_yaml
from hone.errors import ConfigError

QLORA = "tuning.method=qlora"


@pytest.mark.parametrize(
    ("words", "what", "remedy"),
    [
        (["tuning.quantization.bits=8"], "for a quantised base, and tuning.method is 'lora'", "method=qlora"),
        (["tuning.method=full", "tuning.quantization.double_quant=false"], "'full'", "method=qlora"),
        ([QLORA, "tuning.quantization.bits=5"], "tuning.quantization.bits: 5", "4 or 8"),
        ([QLORA, "tuning.quantization.quant_type=nf5"], "quant_type: 'nf5'", "did you mean 'nf4'?"),
        (["tuning.method=qlra"], "tuning.method: 'qlra'", "did you mean 'qlora'?"),
        (["tuning.lora.init=pisa"], "tuning.lora.init: 'pisa'", "did you mean 'pissa'?"),
        (["tuning.lora.init=eva"], "tuning.lora.init: 'eva'", "'default' or 'gaussian'"),
        (["tuning.lora.layers=[a]"], "tuning.lora.layers", "a list of whole numbers, or null"),
        (["tuning.lora.use_rslora=true"], "'tuning.lora.use_rslora'", "did you mean 'tuning.lora.rslora'?"),
    ],
)  # fmt: skip
def test_refused_with_where_it_was_said(words: list[str], what: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(overrides=words)
    assert what in caught.value.what
    assert remedy in (caught.value.remedy or "")
    assert caught.value.where == "command line"


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["tuning.lora.init=loftq"], "set method=qlora or lora.init=pissa"),
        ([QLORA, "tuning.lora.init=pissa"], "set lora.init=loftq, or method=lora"),
        ([QLORA, "tuning.lora.init=olora"], "a quantised base"),
        ([QLORA, "tuning.lora.init=orthogonal"], "a quantised base"),
        (["tuning.lora.init=orthogonal", "tuning.lora.r=3"], "needs an even lora.r"),
        (["tuning.lora.layers=[]"], "lora.layers is empty"),
        (["tuning.method=full", "model.adapter=x"], "model.adapter is trained further by"),
    ],
)
def test_what_does_not_go_together_is_refused(words: list[str], what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(overrides=words)
    assert what in str(caught.value)


@pytest.mark.parametrize(
    ("words", "idle"),
    [
        ([QLORA, "tuning.lora.r=8", "tuning.quantization.bits=8"], []),
        (["tuning.method=freeze", "tuning.lora.r=8"], ["tuning.lora.r"]),
        (["tuning.freeze.trainable_layers=3"], ["tuning.freeze.trainable_layers"]),
        (["tuning.quantization.bits=4"], ["tuning.quantization.bits"]),
        (["tuning.lora.pissa_niter=3"], ["tuning.lora.pissa_niter"]),
        (["tuning.lora.pissa_niter=3", "tuning.lora.init=pissa"], []),
        (
            [QLORA, "tuning.quantization.bits=8", "tuning.quantization.quant_type=fp4"],
            ["tuning.quantization.quant_type"],
        ),
        (
            ["tuning.method=freeze", "tuning.freeze.trainable_layers=0", "tuning.freeze.trainable_modules=[a]"],
            ["tuning.freeze.trainable_modules"],
        ),
        (["model.new_token_init=mean"], ["model.new_token_init"]),
        (["model.new_token_init=mean", "model.new_tokens=[a]"], []),
    ],
)  # fmt: skip
def test_settings_without_effect_are_named(words: list[str], idle: list[str]) -> None:
    said = idle_settings(resolve(overrides=words))
    assert [sentence.split()[0] for sentence in said] == idle


@pytest.mark.parametrize("method", ["lora", "qlora", "freeze", "full"])
def test_a_written_configuration_is_taken_back(method: str, tmp_path) -> None:
    path = tmp_path / "run.yaml"
    words = [
        f"tuning.method={method}",
        "tuning.lora.layers=[0, -1]",
        "model.new_tokens=['a: b', '1']",
    ]
    config = resolve(overrides=words).config
    path.write_text(to_yaml(config))
    assert resolve(file=path).config == config
    assert resolve(file=path, overrides=["tuning.method=lora"]).config.tuning.method == "lora"
