"""The views that analysts start from, as queries over tables, over each other and over `promotions`.

`promotions` has one row for every pair of scorer and decision rule that is or was live: task, recipe_id, scorer_id,
rule_id, promoted_at (the last time, UTC), is_live. It comes from the registry.
"""

# A label or split given by name before the video's bytes arrived finds its video through the file of that name.
# A label is a statement about one content: the first of that name. A stage is kept by every content of a name: nothing
# slips out of the test split that way.
_RESOLVED = """
    SELECT coalesce(f.video_id, t.video_id) AS video_id, t.* EXCEPT (video_id)
    FROM {table} t
    LEFT JOIN ({contents}) f ON t.video_id = f.named
"""
_NAMED = """
    SELECT named, video_id, seen_at, uri FROM (
        SELECT concat('ext:', sha2(concat(source, '\\n', external_id), 256)) AS named, video_id, seen_at, uri
        FROM files WHERE status = 'ok'
    ) LEFT SEMI JOIN (SELECT video_id AS waiting FROM {table} WHERE video_id LIKE 'ext:%') ON named = waiting
"""
_LABELS = _RESOLVED.format(
    table="labels",
    contents="SELECT named, min_by(video_id, struct(seen_at, uri)) AS video_id "
    f"FROM ({_NAMED.format(table='labels')}) GROUP BY named",
)
_SPLITS = _RESOLVED.format(
    table="splits", contents=f"SELECT DISTINCT named, video_id FROM ({_NAMED.format(table='splits')})"
)

_TEXTS = _RESOLVED.format(
    table="texts", contents=f"SELECT DISTINCT named, video_id FROM ({_NAMED.format(table='texts')})"
)

VIEWS = {
    # The latest statement wins; the labels' names decide between two statements of the same moment.
    "current_labels": f"""
        SELECT video_id, task, label, labels, source, observed_at FROM (
            SELECT *, row_number() OVER (PARTITION BY video_id, task ORDER BY observed_at DESC, source, labels) AS rank
            FROM ({_LABELS})
        ) WHERE rank = 1
    """,
    # The first stage that a video was given to keeps it, and with it whatever its files hold before or after.
    "current_splits": f"""
        WITH given AS ({_SPLITS}),
        held AS (
            SELECT DISTINCT f.uri, g.task, g.split, g.assigned_at
            FROM given g JOIN files f ON f.video_id = g.video_id WHERE f.status = 'ok'
        )
        SELECT video_id, task, split FROM (
            SELECT *, row_number() OVER (PARTITION BY video_id, task ORDER BY assigned_at, split) AS rank FROM (
                SELECT video_id, task, split, assigned_at FROM given
                UNION ALL
                SELECT f.video_id, h.task, h.split, h.assigned_at FROM held h JOIN files f ON f.uri = h.uri
                WHERE f.status = 'ok'
            )
        ) WHERE rank = 1
    """,
    # The latest statement on each field; one that is empty takes back what was said before.
    "current_texts": f"""
        SELECT video_id, field, text FROM (
            SELECT *, row_number() OVER (PARTITION BY video_id, field ORDER BY observed_at DESC, source, text) AS rank
            FROM ({_TEXTS})
        ) WHERE rank = 1
    """,
    "current_traces": """
        SELECT * EXCEPT (rank) FROM (
            SELECT *, row_number() OVER (
                PARTITION BY video_id, recipe_id, ingested_on, input_digest, rollout_index ORDER BY attempt DESC) AS rank
            FROM traces
        ) WHERE rank = 1
    """,
    "live": "SELECT task, recipe_id, scorer_id, rule_id FROM promotions WHERE is_live",
    # One row a video: what the versions said of it that were promoted last and know it. A promotion empties nothing. Where
    # its text changed, what was said last; and where it changed back, what was said before.
    "current_scores": """
        SELECT * EXCEPT (rank, promoted_at) FROM (
            SELECT s.video_id, s.task, v.uri, d.label, d.labels, d.top_prob, d.prediction_set, d.abstain, d.reason, s.probs,
                   s.rollouts, s.rollouts_ok, s.agreement, s.input_digest, p.is_live, s.scorer_id, d.rule_id, s.scored_at,
                   s.ingested_on, p.promoted_at, row_number() OVER (
                       PARTITION BY s.task, s.video_id, s.ingested_on
                       ORDER BY p.is_live DESC, p.promoted_at DESC, greatest(s.scored_at, i.noted_at) DESC) AS rank
            FROM promotions p
            JOIN decisions d ON d.scorer_id = p.scorer_id AND d.rule_id = p.rule_id AND d.task = p.task
            JOIN scores s
              ON s.scorer_id = d.scorer_id AND s.ingested_on = d.ingested_on AND s.video_id = d.video_id
                AND s.input_digest = d.input_digest
            JOIN videos v ON v.ingested_on = s.ingested_on AND v.video_id = s.video_id
            LEFT JOIN (SELECT video_id, recipe_id, input_digest, max(noted_at) AS noted_at FROM inputs GROUP BY ALL) i
              ON i.video_id = s.video_id AND i.recipe_id = p.recipe_id AND i.input_digest = s.input_digest
        ) WHERE rank = 1
    """,
    "review_queue": "SELECT * FROM current_scores WHERE abstain ORDER BY top_prob",
}
