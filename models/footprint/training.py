"""What one process of a training needs, phase by phase, as models/training and udfs/training.py do it.

Weights, gradients and AdamW's two moments are float32 and exact; `fsdp` divides them by the processes. The rest is
counted, tensor by tensor, from what autograd keeps of one pass in these libraries, in the manner of Korthikanti et al.
(2205.05198, section 4, whose 34 s b h a layer are of GELU, 16-bit norms and dropout; here SwiGLU, float32 norms, no dropout,
and attention that keeps no scores). Tests hold it against the tensors of a real pass. Left out: tensors of one number a
token, the log-probabilities of the round, buffers of the network.

On a GPU (gradient checkpointing, autocast to bfloat16), bytes a token; h: hidden, q: queries, k: keys, f: intermediate size,
L: layers:

    kept           4 h L + 9 h              each layer's input, and what stands before and behind the layers, in float32
    one layer      18 h + 8 q + 4 k + 11 f  computed anew on the way back, with its gradients
    of a patch     2 v V + 12 v + 6 p       v, V: width and layers of the vision tower, p: values of a patch
    one block      28 v + 11 w              w: the tower's intermediate
    of a logit     2, then 12               bfloat16; then its log-softmax and two gradients of it in float32
    autocast       2 a parameter            the bfloat16 copies that it keeps until the pass forward ends

On a CPU nothing is computed anew: (24 h + 16 q + 10 k + 20 f) L + 9 h a token, (52 v + 16 w) V + 12 v + 4 p a patch.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

from models.footprint.devices import TRAINING_SHARE, Device
from models.footprint.flops import forward
from models.footprint.memory import Memory, Parts
from models.footprint.shape import Shape

_FLOAT32, _BFLOAT16 = 4, 2


@dataclass(frozen=True)
class Piece:
    """A micro-batch: sequences of at most so many tokens; patches: of one sequence's video, before they are merged."""

    sequences: int
    prompt: int
    completion: int
    patches: int

    @property
    def tokens(self) -> int:
        return self.sequences * (self.prompt + self.completion)


@dataclass(frozen=True)
class Among:
    """How a model is trained by several processes, one device each: sharded is `fsdp`, else each has all of it."""

    processes: int
    sharded: bool

    @property
    def shards(self) -> int:
        return self.processes if self.sharded else 1


def state(shape: Shape, among: Among, rank: int | None = None) -> Parts:
    """What lies on the device from the first step on. rank: of adapters that are trained in place of all weights."""
    trained, tensors = (shape.parameters, shape.tensors) if rank is None else shape.adapters(rank)
    weights = shape.parameters + (0 if rank is None else trained)
    return {
        "weights": _FLOAT32 * ceil(weights / among.shards),
        "gradients": _FLOAT32 * ceil(trained / among.shards),
        "optimiser": 2 * _FLOAT32 * ceil(trained / among.shards)
        + _FLOAT32 * tensors,  # and each tensor's count of steps
    }


def memory(
    shape: Shape,
    piece: Piece,
    device: Device,
    among: Among,
    engine: Parts,
    reference: bool = False,
    rank: int | None = None,
) -> Memory:
    """One device by phase: loading; drawing (the engine is given new weights); forward; loss (back through the logits);
    backward (through one layer); stepping.

    engine: what the engine beside the trainer holds, {} for none; reference: whether the model that it began with stays
    beside it, whole (objective grpo); rank: of adapters that are trained in place of all weights. With these the activations
    are at most what is reckoned: of the vision tower none are kept.
    """
    every = _FLOAT32 * shape.parameters
    held = state(shape, among, rank)
    beside = engine | ({"reference model": every} if reference else {})
    beside |= {"context": device.context} if device.context else {}
    kept, layer, vision, block = _activations(shape, piece, device.is_gpu)
    logits = piece.sequences * (piece.completion + 1) * shape.vocabulary
    head = shape.vocabulary * shape.hidden
    spread = among.sharded and among.processes > 1
    root, part = _FLOAT32 * shape.root, _FLOAT32 * shape.block

    phases = {
        "loading": {"weights": every} | {name: size for name, size in beside.items() if name != "reference model"}
    }
    if engine:  # `served` puts the whole model together, of which every process's engine takes a copy
        phases["drawing"] = held | beside | ({"weights, whole": every} if spread else {})
    running = held | beside
    passing = kept + vision + layer // 2  # a layer's own, without gradients
    phases["forward"] = running | {"activations": passing, "logits": logits * (2 if device.is_gpu else 4)}
    # The reference's pass comes between, while the log-softmax of the first one is kept.
    phases["loss"] = running | {"activations": kept + vision, "logits": logits * (14 if reference else 12)}
    phases["backward"] = running | {"activations": vision + max(kept + layer, block)}
    if device.is_gpu:
        phases["forward"]["weights, bfloat16"] = _BFLOAT16 * (shape.parameters - shape.embedding)
        phases["loss"]["weights, bfloat16"] = _BFLOAT16 * head
        phases["backward"]["weights, bfloat16"] = _BFLOAT16 * shape.block
    if spread:  # what stands outside the blocks stays; a block and the next one, on the way back with their gradients
        phases["forward"]["weights, gathered"] = root + 3 * part
        phases["loss"]["weights, gathered"] = root + _FLOAT32 * head
        phases["backward"]["weights, gathered"] = root + _FLOAT32 * head + 4 * part
    phases["stepping"] = running | {"temporaries": _stepping(shape, device, among, rank)}
    return Memory(phases)


def _activations(shape: Shape, piece: Piece, checkpointed: bool) -> tuple[int, int, int, int]:
    """Bytes kept of the text and in one layer of it, kept of the clips and in one block of the vision tower."""
    h, q, k, f = shape.hidden, shape.queries, shape.keys, shape.intermediate
    v, w, layers, blocks = shape.vision_hidden, shape.vision_intermediate, shape.layers, shape.vision_layers
    tokens, patches = piece.tokens, piece.sequences * piece.patches
    # Sequences of unlike length take a mask: one byte for every pair of tokens, two once attention has made numbers of it.
    mask = 3 * piece.sequences * (piece.prompt + piece.completion) ** 2 if piece.sequences > 1 else 0
    if checkpointed:
        kept, layer = 4 * h * layers + 9 * h, 18 * h + 8 * q + 4 * k + 11 * f
        vision, block = 2 * v * blocks + 12 * v + 6 * shape.patch_values, 28 * v + 11 * w
    else:
        kept, layer = (24 * h + 16 * q + 10 * k + 20 * f) * layers + 9 * h, 0
        vision, block = (52 * v + 16 * w) * blocks + 12 * v + 4 * shape.patch_values, 0
    return tokens * kept + mask, tokens * layer, patches * vision, patches * block


def _stepping(shape: Shape, device: Device, among: Among, rank: int | None) -> int:
    """What AdamW and the sum of the gradients make on their way: on a GPU a root of every second moment at once, of several
    processes with the whole model each all gradients in one piece; else one tensor at a time."""
    whole = not among.sharded and (device.is_gpu or among.processes > 1)
    trained, _ = (shape.parameters, 0) if rank is None else shape.adapters(rank)
    return _FLOAT32 * min(trained, trained if whole else ceil(shape.vocabulary * shape.hidden / among.shards))


def seconds(shape: Shape, piece: Piece, device: Device, passes: float) -> float:
    """Of one process for one micro-batch, FLOP at TRAINING_SHARE of the peak; passes: as many passes forward it is worth."""
    each = forward(shape, piece.prompt + piece.completion, piece.completion + 1, piece.patches)
    return piece.sequences * each * passes / (device.flops * TRAINING_SHARE)


def passes(device: Device) -> int:
    """Of a step: one forward, one back, which costs two, and where activations are computed anew another one forward."""
    return 4 if device.is_gpu else 3
