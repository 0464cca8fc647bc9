"""Given versions that were promoted, on a disk or on S3, then what is live, what was before and what runs beside it are told
apart, and what was changed by hand is refused in one line."""

from __future__ import annotations

import pytest

from lake import storage
from lake.registry import Registry, RegistryError

TASK = "animals"


def versions(number: int) -> dict:
    ids = {"scorer_id": f"s{number}", "rule_id": f"r{number}", "calibrator_id": f"c{number}"}
    return ids | {"promoted_at": f"2026-03-0{number}"}


@pytest.fixture
def registry(anywhere):
    """Three calibrators, promoted in turn."""
    made = Registry(anywhere)
    for number in (1, 2, 3):
        manifest = {"calibrator_id": f"c{number}", "created_at": f"2026-03-0{number}"}
        made.save(TASK, manifest, b"weights", f"said {number}".encode())
        made.promote(TASK, versions(number))
    return made


def test_rolling_back_and_back_again_ends_where_it_began(registry):
    assert registry.live(TASK)["scorer_id"] == "s3" and registry.before(TASK)["scorer_id"] == "s2"
    registry.promote(TASK, versions(2))
    assert registry.live(TASK)["scorer_id"] == "s2" and registry.before(TASK)["scorer_id"] == "s3"
    registry.promote(TASK, versions(3))
    assert registry.live(TASK)["scorer_id"] == "s3" and registry.before(TASK)["scorer_id"] == "s2"
    assert sorted((pair["scorer_id"], pair["is_live"]) for pair in registry.promotions(TASK)) == [
        ("s1", False),
        ("s2", False),
        ("s3", True),
    ]


def test_half_of_what_is_live_is_one_line_and_what_was_promoted_last_can_be_gone_back_to(registry, anywhere):
    uri = storage.join(anywhere, "registry", TASK, "live.json")
    storage.write(uri, storage.read_bytes(uri)[:20])
    with pytest.raises(storage.Damaged, match=r"live.json: expected .*: `deepintuit promote` writes it anew") as told:
        registry.live(TASK)
    assert "\n" not in str(told.value)
    assert registry.before(TASK)["scorer_id"] == "s3"
    registry.promote(TASK, versions(3))
    assert registry.live(TASK)["scorer_id"] == "s3"


def test_half_a_note_of_what_was_promoted_is_mended_or_told(registry, anywhere):
    def cut(number: int) -> str:
        uri = storage.join(anywhere, "registry", TASK, "promoted", f"s{number}.r{number}.json")
        storage.write(uri, storage.read_bytes(uri)[:20])
        return uri

    cut(3)  # live.json says the same
    assert {pair["scorer_id"] for pair in registry.promotions(TASK)} == {"s1", "s2", "s3"}
    cut(1)
    with pytest.raises(storage.Damaged, match=r"s1.r1.json: expected .*writes it anew; or delete it"):
        registry.promotions(TASK)
    # What mends it works over it.
    assert {pair["scorer_id"] for pair in registry.promotions(TASK, whole=False)} == {"s2", "s3"}
    assert registry.before(TASK)["scorer_id"] == "s2"
    registry.promote(TASK, versions(1))
    assert {pair["scorer_id"] for pair in registry.promotions(TASK)} == {"s1", "s2", "s3"}


def test_what_is_owed_to_a_shadow_is_kept_until_it_is_paid(registry, anywhere):
    assert registry.shadow_owes(TASK) == []
    registry.note_shadow_owes(TASK, {"2026-03-02", "2026-03-01"})
    assert registry.shadow_owes(TASK) == ["2026-03-01", "2026-03-02"]
    registry.note_shadow_owes(TASK, ())
    registry.note_shadow_owes(TASK, ())
    assert registry.shadow_owes(TASK) == []


def test_a_shadow_is_cast_and_taken_away(registry):
    assert registry.shadow(TASK) is None
    registry.cast_shadow(TASK, versions(1))
    assert registry.shadow(TASK)["scorer_id"] == "s1" and registry.live(TASK)["scorer_id"] == "s3"
    registry.cast_shadow(TASK, None)
    registry.cast_shadow(TASK, None)
    assert registry.shadow(TASK) is None


def test_what_was_said_of_others_is_what_the_manifest_names(registry, anywhere):
    manifest = registry.calibrator(TASK, "c2")
    assert registry.held_out(TASK, manifest) == b"said 2"
    registry.save(TASK, {"calibrator_id": "c2", "created_at": "2026-03-09"}, b"weights", b"said anew")
    assert registry.held_out(TASK, registry.calibrator(TASK, "c2")) == b"said anew"
    assert registry.held_out(TASK, manifest) == b"said 2"  # whoever read the manifest before can go on
    uri = storage.join(registry.folder(TASK, "c2"), f"held_out-{manifest['held_out'][:16]}.safetensors")
    storage.write(uri, b"said 3")
    with pytest.raises(storage.Damaged, match=r"expected what its name says, found other bytes .*calibrate"):
        registry.held_out(TASK, manifest)
    storage.delete(uri)
    with pytest.raises(storage.Damaged, match=r"expected what the manifest names, found nothing"):
        registry.held_out(TASK, manifest)


def test_what_is_not_registered_is_told_with_what_is(registry):
    with pytest.raises(RegistryError, match="has no calibrator c9; registered: c1, c2, c3"):
        registry.calibrator(TASK, "c9")
    with pytest.raises(RegistryError, match="task other has no live versions"):
        registry.live("other")
    registry.nominate(TASK, "c1")
    assert registry.calibrator(TASK)["calibrator_id"] == "c1"
