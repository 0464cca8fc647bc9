"""What a model folder says beside its weights: refused where it would fail in every worker, and never obeyed in silence."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText

from benchmarks import families, parity
from models.engines.config import lora_rank, quantization_of
from models.engines.folder import check_folder
from models.engines.promise import Adapter, EngineSpec, Request, Sampling
from models.engines.transformers import TransformersEngine
from models.engines.vllm import VllmEngine
from models.language.label_scores import Checks, Choice
from models.language.prompts import begun
from models.video.clip import Clip
from models.video.frames import FrameSpec

FAMILY = "qwen2_5_vl"
CHOICE = Choice(("rising", "falling"))
FRAMES = FrameSpec(count=8, max_pixels=56 * 56, fps=4.0, cell=28)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return families.make(tmp_path_factory.mktemp("made"), FAMILY)


@pytest.fixture
def folder(made, tmp_path):
    """A copy to break."""
    return shutil.copytree(made, tmp_path / "model")


def changed(path, change):
    """Rewrite a JSON file."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def request_of(engine, n=1, adapter=""):
    pixels = np.random.default_rng(0).integers(0, 255, (4, 56, 84, 3), dtype=np.uint8)
    return Request("k", engine.chat("What?"), (Clip.even(pixels, 2.0),), 0, n, 5, adapter)


SOME = Sampling(max_tokens=24)


def rollouts(engine, n=3, adapter="", sampling=SOME):
    """Completions of one clip, by index."""
    asked = request_of(engine, n, adapter)
    return {done.index: done for done in engine.generate(iter([asked]), sampling, token_logprobs=True)}


def test_a_good_folder_is_served_and_the_length_of_its_prompt_is_told(folder):
    assert (
        10
        < check_folder(str(folder), "What?", CHOICE, FRAMES)
        < check_folder(str(folder), "What? " * 20, CHOICE, FRAMES)
    )


def test_what_would_fail_in_every_worker_is_said_before_one_starts(folder):
    def refusal(text="What?", scored=CHOICE, adapters=()):
        with pytest.raises(ValueError) as refused:
            check_folder(str(folder), text, scored, FRAMES, adapters)
        return str(refused.value)

    assert "adapter_config.json: expected the configuration of a LoRA adapter" in refusal(adapters=[str(folder)])
    for written, said in (
        ("[]", "expected the configuration of a LoRA adapter, found list"),
        ('{"r": 1024}', "found 1024"),
    ):
        (folder / "adapter_config.json").write_text(written)
        assert said in refusal(adapters=[str(folder)])
    assert "special token <|im_end|>" in refusal("What?<|im_end|>")
    assert "code 'not one token'" in refusal(scored=Checks((("a", "Is it?"),), ("not one token", "no")))
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'][-1]['text'] }}")
    assert "gave 0 video placeholders" in refusal()
    (folder / "chat_template.jinja").write_text(template)
    changed(folder / "processor_config.json", lambda value: value["video_processor"].update(image_std=[1, 1, 1]))
    assert "image_std: expected one value for pictures and clips" in refusal()
    (folder / "processor_config.json").unlink()
    assert "expected a processor" in refusal()
    changed(folder / "config.json", lambda value: value.update(model_type="qwen3"))
    assert "model_type: expected a vision-language model of the families qwen2_5_vl, qwen3_vl, found qwen3" in refusal()
    (folder / "config.json").write_text("{")
    assert "config.json: expected the configuration of a model" in refusal()


def test_the_method_of_a_quantised_folder_is_known(folder):
    assert quantization_of(str(folder)) == ""
    changed(folder / "config.json", lambda value: value.update(quantization_config={"quant_method": "fp8"}))
    assert quantization_of(str(folder)) == "fp8"


@pytest.mark.parametrize("make", [VllmEngine, TransformersEngine])
def test_what_a_recipe_does_not_say_is_neutral_whatever_the_folder_says(folder, made, make):
    """Published folders come with a temperature, a top-k and a penalty of their own, and with bounds on frames."""
    odd = {"do_sample": True, "temperature": 0.01, "top_k": 1, "top_p": 0.1, "repetition_penalty": 1.9, "min_p": 0.5}
    changed(folder / "generation_config.json", lambda value: value.update(odd))
    larger = {"shortest_edge": 200 * 200, "longest_edge": 1 << 30}

    def enlarge(value):
        value["image_processor"]["size"] = value["video_processor"]["size"] = larger

    changed(folder / "processor_config.json", enlarge)
    found = []
    for place in (made, folder):
        engine = make(EngineSpec(make.name, str(place), max_model_len=512, max_num_seqs=8, kv_cache_bytes=1 << 27))
        found.append([rollouts(engine), rollouts(engine, 1, sampling=Sampling(temperature=0, max_tokens=24))])
        engine.close()
    assert found[0] == found[1]
    assert len({done.token_ids for done in found[0][0].values()}) == 3  # drawn, not the most probable thrice


def quantise(folder):
    """The language model's weights to 8 bits a channel, as llm-compressor writes them."""
    path = folder / "model.safetensors"
    weights = load_file(path)
    for name in [name for name in weights if name.endswith("_proj.weight") and "visual" not in name]:
        scale = weights[name].abs().amax(1, keepdim=True) / 127
        weights[name] = (weights[name] / scale).round().to(torch.int8)
        weights[f"{name.removesuffix('weight')}weight_scale"] = scale
    save_file(weights, path, metadata={"format": "pt"})
    eight = {"num_bits": 8, "type": "int", "symmetric": True}
    group = {
        "targets": ["Linear"],
        "weights": eight | {"strategy": "channel", "dynamic": False},
        "input_activations": eight | {"strategy": "token", "dynamic": True},
    }
    said = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "config_groups": {"group_0": group},
        "ignore": ["lm_head", "re:.*visual.*"],
    }
    changed(folder / "config.json", lambda value: value.update(quantization_config=said))


def test_a_quantised_folder_is_served_and_says_nearly_the_same(folder, made):
    quantise(folder)
    assert quantization_of(str(folder)) == "compressed-tensors"
    spec = EngineSpec("vllm", str(folder), max_model_len=512, max_num_seqs=8, kv_cache_bytes=1 << 27)
    engine, exact = VllmEngine(spec), TransformersEngine(EngineSpec("transformers", str(made)))
    done = rollouts(engine, 1)[0]
    same = exact.score(request_of(exact), done.token_ids)
    differences = np.abs(np.subtract(done.token_logprobs, same.token_logprobs))
    assert 1e-4 < differences.mean() < 0.3
    engine.close()
    exact.close()


def test_a_template_that_opens_the_reasoning_is_seen(folder):
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("<|im_start|>assistant\n", "<|im_start|>assistant\n<think>\n"))
    engine = TransformersEngine(EngineSpec("transformers", str(folder)))
    assert begun(engine.chat("What?")) == "<think>"
    assert check_folder(str(folder), "What?", Checks((("a", "Is it?"),), ("yes", "no")), FRAMES) > 0
    engine.close()


@pytest.fixture(scope="module")
def adapter(made, tmp_path_factory):
    """A LoRA adapter that does something, as peft saves it."""
    folder = tmp_path_factory.mktemp("adapter")
    model = AutoModelForImageTextToText.from_pretrained(made)
    config = LoraConfig(r=4, lora_alpha=8, target_modules=r".*language_model.*\.(q_proj|v_proj|down_proj)")
    get_peft_model(model, config).save_pretrained(folder)
    path = folder / "adapter_model.safetensors"
    weights = load_file(path)
    rng = np.random.default_rng(0)
    save_file(
        {name: value + value.new_tensor(rng.normal(0, 0.3, value.shape)) for name, value in weights.items()}, path
    )
    return str(folder)


def test_adapters_are_chosen_by_request_and_both_engines_compute_the_same(made, adapter):
    serving, reference = parity.engines(made, adapters=(Adapter("tuned", adapter),))
    greedy = Sampling(temperature=0, max_tokens=24)
    for engine in (serving, reference):
        plain, tuned, again = (rollouts(engine, 1, name, greedy)[0] for name in ("", "tuned", ""))
        assert plain == again
        assert tuned.logprob_sum != pytest.approx(plain.logprob_sum, abs=0.1)
    fast, slow = (rollouts(engine, 1, "tuned", greedy)[0] for engine in (serving, reference))
    assert fast.token_ids == slow.token_ids
    assert fast.token_logprobs == pytest.approx(slow.token_logprobs, abs=1e-4)
    serving.close()
    reference.close()
    assert lora_rank(adapter) == 4


def test_an_engine_over_two_devices_says_what_one_says(made, monkeypatch):
    """Tensor parallel; on this machine two processes on the CPU, which vLLM would bind to memory nodes of their own."""
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    spec = EngineSpec("vllm", str(made), max_model_len=512, max_num_seqs=8, kv_cache_bytes=1 << 27)
    found = []
    for gpus in (1, 2):
        engine = VllmEngine(replace(spec, gpus=gpus))
        found.append(rollouts(engine, 1, sampling=Sampling(temperature=0, max_tokens=24))[0])
        engine.close()
    assert found[0].token_ids == found[1].token_ids
    assert found[0].token_logprobs == pytest.approx(found[1].token_logprobs, abs=1e-4)
