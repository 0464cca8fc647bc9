"""What `fsdp` puts together on its way through a model, counted in two real processes that share one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from storages import Storages
from support import free_port
from torch import distributed

from models.footprint import training
from models.footprint.devices import device_of
from models.footprint.shape import shape_of
from models.footprint.training import Among, Piece

TOKENS = 16  # few, so that hardly any activations lie beside the weights


def config():
    from transformers import Qwen2_5_VLConfig

    text = {"hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 2}
    text |= {"intermediate_size": 1024, "vocab_size": 2048, "bos_token_id": None, "eos_token_id": None}
    text |= {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 6, 6]}}
    vision = {"depth": 2, "hidden_size": 64, "num_heads": 2, "intermediate_size": 128, "out_hidden_size": 256}
    return Qwen2_5_VLConfig(text_config=text, vision_config=vision | {"patch_size": 14, "fullatt_block_indexes": [1]})


def go(rank: int, port: int, out: str) -> None:
    from transformers import AutoModelForImageTextToText

    from models.training import parallel

    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    model = AutoModelForImageTextToText.from_config(config()).float().train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    parallel.sharded(model)
    ids = torch.full((1, TOKENS), 20)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": torch.zeros_like(ids)}
    with Storages() as counted:
        for _ in range(2):  # the second time gradients are there
            before = counted.now
            counted.peak = before
            loss = model(**inputs, use_cache=False, logits_to_keep=2).logits.sum()
            forward, counted.peak = counted.peak - before, counted.now
            loss.backward()
            backward = counted.peak - before
    if rank == 0:
        Path(out).write_text(json.dumps({"forward": forward, "backward": backward}))
    distributed.destroy_process_group()


def test_it_is_what_stands_outside_the_blocks_and_some_blocks(tmp_path):
    config().save_pretrained(tmp_path)
    torch.multiprocessing.spawn(go, (free_port(), str(tmp_path / "peaks.json")), nprocs=2)
    real = json.loads((tmp_path / "peaks.json").read_text())
    held = training.memory(shape_of(str(tmp_path)), Piece(1, TOKENS - 1, 1, 0), device_of("cpu"), Among(2, True), {})
    for phase in ("forward", "backward"):
        assert held.phases[phase]["weights, gathered"] == pytest.approx(real[phase], rel=0.15), phase
