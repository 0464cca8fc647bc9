"""Floating-point operations of one pass forward, counted in multiply-adds as two."""

from __future__ import annotations

from models.footprint.shape import Shape


def forward(shape: Shape, tokens: int, predicted: int, patches: int) -> float:
    """FLOP of one sequence: 2 per parameter and token (Kaplan et al. 2001.08361, table 1), and causal attention.

    tokens: of the sequence, those of its video included; predicted: places whose logits are made; patches: of its video,
    before they are merged. Attention inside the vision tower is left out (windows: below 3 % of the tower).
    """
    attention = 2 * shape.layers * shape.queries * tokens**2  # QK and AV: 2 each, of which the causal half
    head = 2 * shape.vocabulary * shape.hidden * predicted
    return float(2 * shape.text * tokens + attention + head + 2 * shape.vision * patches)
