"""The views that analysts start from, as queries over tables, over each other and over `promotions`.

`promotions` has one row for every pair of scorer and decision rule that is or was live: task, recipe_id, scorer_id,
rule_id, promoted_at (the last time, UTC), is_live. It comes from the registry.
"""


def base_of(name: str) -> str:
    """What is behind the last folder, of a column."""
    return f"regexp_extract({name}, '[^/]*$', 0)"


def is_called(uri: str, stem: str, name: str) -> str:
    """Whether a file has a name: that of the file and as many folders above it as the name has, with its extension or not.

    stem: the column with the file's name without folder and extension.
    """
    bare = f"concat(regexp_extract({uri}, '^(.*/)', 1), {stem})"
    return f"({uri} = {name} OR endswith({uri}, concat('/', {name})) OR endswith({bare}, concat('/', {name})))"


def _named(table: str) -> str:
    """The files that have the name under which something was said before they came."""
    return f"""
        SELECT w.video_id AS named, f.video_id, f.seen_at, f.uri
        FROM (
            SELECT DISTINCT video_id, external_id AS name, {base_of("external_id")} AS base
            FROM {table} WHERE video_id LIKE 'ext:%'
        ) w JOIN (
            SELECT *, explode(array_distinct(array(external_id, {base_of("uri")}))) AS base
            FROM files WHERE status = 'ok'
        ) f ON f.base = w.base
        WHERE w.video_id = concat('ext:', sha2(concat(f.source, '\n', w.name), 256))
          AND {is_called("f.uri", "f.external_id", "w.name")}
    """


def _resolved(table: str, contents: str) -> str:
    """The rows of a table with the videos that they are about, where these have come since."""
    return f"""
        SELECT coalesce(f.video_id, t.video_id) AS video_id, t.* EXCEPT (video_id)
        FROM {table} t LEFT JOIN ({contents.format(named=_named(table))}) f ON t.video_id = f.named
    """


# A label is a statement about one content: the first of that name. A stage is kept by every content of a name: nothing
# slips out of the test split that way.
_FIRST = "SELECT named, min_by(video_id, struct(seen_at, uri)) AS video_id FROM ({named}) GROUP BY named"
_EVERY = "SELECT DISTINCT named, video_id FROM ({named})"

VIEWS = {
    # The latest statement wins; the labels' names decide between two statements of the same moment.
    "current_labels": f"""
        SELECT video_id, task, label, labels, source, observed_at FROM (
            SELECT *, row_number() OVER (PARTITION BY video_id, task ORDER BY observed_at DESC, source, labels) AS rank
            FROM ({_resolved("labels", _FIRST)})
        ) WHERE rank = 1
    """,
    # All values of a fact in the latest statement on it.
    "current_facets": f"""
        SELECT video_id, task, name, value FROM (
            SELECT *, rank() OVER (PARTITION BY video_id, task, name ORDER BY observed_at DESC, source) AS rank
            FROM ({_resolved("facets", _FIRST)})
        ) WHERE rank = 1
    """,
    # The first stage that a video was given to keeps it, and with it whatever its files hold before or after.
    "current_splits": f"""
        WITH given AS ({_resolved("splits", _EVERY)}),
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
            FROM ({_resolved("texts", _EVERY)})
        ) WHERE rank = 1
    """,
    # What other systems' traces are about; came_as: the video of that name, where it has come since.
    "current_imports": f"""
        SELECT i.*, f.video_id AS came_as
        FROM imports i LEFT JOIN ({_FIRST.format(named=_named("imports"))}) f ON i.video_id = f.named
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
            SELECT s.video_id, s.task, v.uri, d.label, d.labels, d.top_prob, d.expected_cost,
                   d.prediction_set, d.abstain, d.reason, s.probs,
                   s.rollouts, s.rollouts_ok, s.agreement, s.input_digest, p.is_live, s.scorer_id, d.rule_id, s.scored_at,
                   s.ingested_on, p.promoted_at, row_number() OVER (
                       PARTITION BY s.task, s.video_id, s.ingested_on
                       ORDER BY p.is_live DESC, p.promoted_at DESC, greatest(s.scored_at, i.noted_at) DESC) AS rank
            FROM promotions p
            JOIN decisions d ON d.scorer_id = p.scorer_id AND d.rule_id = p.rule_id AND d.task = p.task
            JOIN scores s
              ON s.scorer_id = d.scorer_id AND s.ingested_on = d.ingested_on AND s.video_id = d.video_id
                AND s.input_digest = d.input_digest
            LEFT JOIN videos v ON v.ingested_on = s.ingested_on AND v.video_id = s.video_id
            LEFT JOIN (SELECT video_id, recipe_id, input_digest, max(noted_at) AS noted_at FROM inputs GROUP BY ALL) i
              ON i.video_id = s.video_id AND i.recipe_id = p.recipe_id AND i.input_digest = s.input_digest
        ) WHERE rank = 1
    """,
    # What people said of a video after a decision had left it to them, whatever decided on it since.
    "reviewed": """
        SELECT s.*, l.labels AS said, l.source AS said_by, l.observed_at AS said_at
        FROM current_scores s
        JOIN current_labels l ON l.video_id = s.video_id AND l.task = s.task
        JOIN (SELECT video_id, task, min(decided_at) AS left_at FROM decisions WHERE abstain GROUP BY ALL) d
          ON d.video_id = s.video_id AND d.task = s.task
        WHERE s.abstain AND l.labels IS NOT NULL AND l.observed_at > d.left_at
    """,
    # Nobody has to look at what has a label, whenever it was said.
    "review_queue": """
        SELECT q.* FROM current_scores q
        LEFT ANTI JOIN current_labels l ON l.video_id = q.video_id AND l.task = q.task AND l.labels IS NOT NULL
        WHERE q.abstain ORDER BY q.expected_cost DESC NULLS LAST, q.top_prob
    """,
}
