"""What a calibrator learns from and is judged by: one labelled video a row. No table: a file of the run's own, whose digest
the calibrator's manifest names."""

from schemas.checks import Contract, holds, not_null, one_of

KEY = ("video_id",)


def contract(independent: bool, rollouts: int) -> Contract:
    """rollouts: traces of each video."""
    one_label = (
        ()
        if independent
        else (
            holds(
                "has_one_label", "aggregate(targets, 0L, (a, n) -> a + n) = 1", "expected exactly one label of the task"
            ),
        )
    )
    return (
        not_null("video_id"),
        not_null("split"),
        one_of("split", ("calibrate",)),
        not_null("targets"),
        *one_label,
        not_null("fold"),
        not_null("cluster"),
        holds("has_all_traces", f"size(traces) = {rollouts}", f"expected {rollouts} traces"),
    )
