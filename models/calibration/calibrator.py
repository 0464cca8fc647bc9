"""What every calibrator is, whatever its kind: probabilities for a video from its traces, under names that say how."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from models import identity
from models.calibration.both import BothCalibrator, BothSpec
from models.calibration.effort import EffortCalibrator, EffortSpec, Step, loaded
from models.calibration.features import FeatureSpec, Trace
from models.calibration.linear import LinearCalibrator
from models.calibration.probabilities import sigmoid, softmax
from models.calibration.reviewer import ReviewCalibrator
from models.calibration.text import TextCalibrator, TextSpec
from models.calibration.vote import VoteCalibrator
from models.language.rule import code_of


class Calibrator(Protocol):
    """kind: its name in manifests; temperature > 0; tensors: what was learned; parameters: what else decides."""

    @property
    def kind(self) -> str: ...

    @property
    def spec(self) -> FeatureSpec: ...

    @property
    def temperature(self) -> float: ...

    def logits(self, features: Any) -> np.ndarray:
        """Uncalibrated logits [N, L] of features [N, D], as its spec gives them: of text a sparse matrix."""
        ...

    def tensors(self) -> dict[str, np.ndarray]: ...

    def parameters(self) -> dict[str, Any]: ...


def taken(calibrator: Calibrator, traces: Sequence[Trace]) -> Sequence[Trace] | None:
    """Of a video's traces those that it is scored by; None where it needs more of them."""
    return calibrator.taken(traces) if isinstance(calibrator, EffortCalibrator) else traces


def probs(calibrator: Calibrator, traces: Sequence[Trace]) -> dict[str, float]:
    """Probability of every label for one video, given its traces; they sum to 1 unless the labels are independent."""
    return probs_of_all(calibrator, [traces])[0]


def probs_of_all(calibrator: Calibrator, videos: Sequence[Sequence[Trace]]) -> list[dict[str, float]]:
    """The same for several videos."""
    if not videos:
        return []
    spec = calibrator.spec
    of_logits = sigmoid if spec.independent else softmax
    rows = of_logits(calibrator.logits(spec.matrix(videos)), calibrator.temperature)
    return [dict(zip(spec.labels, row.tolist(), strict=True)) for row in rows]


def weights(calibrator: Calibrator) -> bytes:
    """What was learned, as safetensors; the temperature belongs to the manifest."""
    return save_tensors(calibrator.tensors())


def manifest(calibrator: Calibrator, recipe_id: str, rollouts: int) -> dict[str, Any]:
    """What `load` needs beside the weights, with the digests that enter a scorer's identity.

    recipe_id, rollouts: of the traces that it learned from and looks at; the same vote over others is another calibrator.
    """
    return _named(calibrator, weights(calibrator), recipe_id, rollouts)


def _named(calibrator: Calibrator, weights: bytes, recipe_id: str, rollouts: int) -> dict[str, Any]:
    spec = calibrator.spec
    kind: dict[str, Any] = {"kind": calibrator.kind, "labels": list(spec.labels)} | calibrator.parameters()
    kind |= {"mode": "independent"} if spec.independent else {}
    learned = identity.digest(kind | {"weights": hashlib.sha256(weights).hexdigest()})
    calibration = identity.digest({"temperature": calibrator.temperature})
    return kind | {
        "temperature": calibrator.temperature,
        "calibrator": learned,
        "calibration": calibration,
        "recipe_id": recipe_id,
        "rollouts": rollouts,
        "calibrator_id": identity.digest([learned, calibration, recipe_id, rollouts]),
    }


def load(manifest: Mapping[str, Any], weights: bytes) -> Calibrator:
    """The calibrator behind a manifest. Raises ValueError for a kind that this version does not know, for a rule that is not
    there or no longer the same, and where weights, temperature or recipes are others than those that its id names."""
    made = _loaded(manifest, weights)
    found = _named(made, weights, manifest["recipe_id"], manifest["rollouts"])["calibrator_id"]
    if found != manifest["calibrator_id"]:
        raise ValueError(
            f"expected what the id {manifest['calibrator_id']} names, found weights or settings whose id would be {found}: "
            "somebody changed them; `deepintuit calibrate` with the settings of that time writes them anew, `deepintuit "
            "promote` or `rollback` makes another one live"
        )
    for of in (manifest, manifest.get("reviewed") or {}, *manifest.get("plan", ())):
        if "recipe" in of and identity.digest(of["recipe"]) != of["recipe_id"]:
            raise ValueError(
                f"expected the recipe that the id {of['recipe_id']} names, found that of {identity.digest(of['recipe'])}: "
                "somebody changed it; `deepintuit calibrate` with the settings of that time writes it anew"
            )
    return made


def _loaded(manifest: Mapping[str, Any], weights: bytes) -> Calibrator:
    kind, labels = manifest["kind"], tuple(manifest["labels"])
    independent, temperature = manifest.get("mode") == "independent", manifest["temperature"]
    if (rule := manifest.get("rule", "")) and (code := code_of(rule)) != manifest["rule_code"]:
        raise ValueError(
            f"the task's rule {rule} has changed since this calibrator learned from it: expected its code "
            f"{manifest['rule_code']}, found {code}; calibrate and promote again, or put it back"
        )
    if kind == "linear":
        spec = FeatureSpec(labels, manifest["hashed_words"], independent, rule)
        return LinearCalibrator(spec, **load_tensors(weights), temperature=temperature)
    if kind == "text":
        text = TextSpec(labels, 0, independent, rule, manifest["prompts"])
        return TextCalibrator(text, **load_tensors(weights), temperature=temperature)
    if kind == "adaptive":
        steps = tuple(Step(*step) for step in manifest["steps"])
        effort = EffortSpec(labels, 0, False, rule, steps, manifest["agreement"])
        return loaded(effort, load_tensors(weights), temperature)
    if kind == "vote":
        return VoteCalibrator(FeatureSpec(labels, 0, independent), manifest["rollouts"], temperature)
    if kind == "vlm":
        return ReviewCalibrator(FeatureSpec(labels, 0), temperature)
    if kind == "both":
        both = BothSpec(labels, 0, False, rule, manifest["reviews"], manifest["prompts"])
        tensors = load_tensors(weights)
        share = float(tensors.pop("share")[0])
        return BothCalibrator(both, TextCalibrator(both.text, **tensors), share, temperature)
    raise ValueError(f"calibrator kind: expected adaptive, both, linear, text, vlm or vote, found {kind!r}")
