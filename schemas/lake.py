"""All tables of a lake and the views that analysts start from."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

from pyspark.sql import DataFrame, SparkSession

from schemas.decisions import DECISIONS
from schemas.files import FILES
from schemas.labels import LABELS
from schemas.metrics import METRICS
from schemas.quality import QUALITY
from schemas.quarantine import QUARANTINE
from schemas.recipes import RECIPES
from schemas.runs import RUNS
from schemas.scorers import SCORERS
from schemas.scores import SCORES
from schemas.splits import SPLITS
from schemas.table import LakeError, Table, create, exists, read
from schemas.traces import TRACES
from schemas.videos import VIDEOS

TABLES: tuple[Table, ...] = (
    FILES,
    VIDEOS,
    LABELS,
    SPLITS,
    RECIPES,
    SCORERS,
    TRACES,
    SCORES,
    DECISIONS,
    QUARANTINE,
    QUALITY,
    RUNS,
    METRICS,
)
BY_NAME = {table.name: table for table in TABLES}

# A label or split given by name before the video's bytes arrived finds its video through the file of that name.
# Every content of a name, and of a file that was replaced, keeps the stage: nothing slips out of the test split that way. A
# label is a statement about one content: the first of that name.
_ALL_CONTENTS = "SELECT DISTINCT source, external_id, video_id FROM files WHERE status = 'ok'"
_FIRST_CONTENT = """
    SELECT source, external_id, min_by(video_id, struct(seen_at, uri)) AS video_id
    FROM files WHERE status = 'ok' GROUP BY source, external_id
"""
_RESOLVED = """
    SELECT coalesce(f.video_id, t.video_id) AS video_id, t.* EXCEPT (video_id)
    FROM {table} t
    LEFT JOIN ({names}) f
      ON t.video_id = concat('ext:', sha2(concat(f.source, '\\n', f.external_id), 256))
"""
_REPLACED = """
    SELECT DISTINCT a.video_id AS one, b.video_id AS other FROM files a JOIN files b ON a.uri = b.uri
    WHERE a.status = 'ok' AND b.status = 'ok' AND a.video_id <> b.video_id
"""

VIEWS = {
    # The latest statement wins; the label's name decides between two statements of the same moment.
    "current_labels": f"""
        SELECT video_id, task, label, source, observed_at FROM (
            SELECT *, row_number() OVER (PARTITION BY video_id, task ORDER BY observed_at DESC, source, label) AS rank
            FROM ({_RESOLVED.format(table="labels", names=_FIRST_CONTENT)})
        ) WHERE rank = 1
    """,
    # The first stage that a video was given to keeps it.
    "current_splits": f"""
        WITH given AS ({_RESOLVED.format(table="splits", names=_ALL_CONTENTS)}), replaced AS ({_REPLACED})
        SELECT video_id, task, split FROM (
            SELECT *, row_number() OVER (PARTITION BY video_id, task ORDER BY assigned_at, split) AS rank FROM (
                SELECT video_id, task, split, assigned_at FROM given
                UNION ALL
                SELECT r.other, g.task, g.split, g.assigned_at FROM given g JOIN replaced r ON r.one = g.video_id
            )
        ) WHERE rank = 1
    """,
    "current_traces": """
        SELECT * EXCEPT (rank) FROM (
            SELECT *, row_number() OVER (
                PARTITION BY video_id, recipe_id, rollout_index ORDER BY attempt DESC) AS rank
            FROM traces
        ) WHERE rank = 1
    """,
    "current_scores": """
        SELECT s.video_id, s.task, v.uri, d.label, d.top_prob, d.prediction_set, d.abstain, d.reason, s.probs,
               s.rollouts, s.rollouts_ok, s.agreement, s.scorer_id, d.rule_id, s.scored_at
        FROM scores s
        JOIN live l ON l.task = s.task AND l.scorer_id = s.scorer_id
        JOIN decisions d ON d.video_id = s.video_id AND d.scorer_id = s.scorer_id AND d.rule_id = l.rule_id
        JOIN videos v ON v.video_id = s.video_id
    """,
    "review_queue": "SELECT * FROM current_scores WHERE abstain ORDER BY top_prob",
}


def create_all(root: str) -> None:
    """Make every table that is missing. Raises LakeError if one was made by another schema version."""
    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(lambda table: create(table, root), TABLES))


def require(root: str) -> None:
    """For jobs that do not make a lake. Raises LakeError where there is none, or one of another schema version."""
    if not exists(TABLES[0], root):
        raise LakeError(
            f"{root}: expected a lake, found no table {TABLES[0].name}; is lake.root right? `deepintuit ingest` makes one"
        )
    create_all(root)


def register_views(spark: SparkSession, root: str, live: list[dict[str, str]]) -> None:
    """Give every table and view its name in this session.

    live: one dict (task, recipe_id, scorer_id, rule_id) per task with something promoted; it becomes the view `live`.
    """
    for table in TABLES:
        read(spark, table, root).createOrReplaceTempView(table.name)
    _register_live(spark, live)
    for name, query in VIEWS.items():
        spark.sql(query).createOrReplaceTempView(name)


def view(spark: SparkSession, root: str, name: str, live: list[dict[str, str]]) -> DataFrame:
    """One view as of now; registers only what its query names."""
    query = VIEWS[name]
    words = set(re.findall(r"\w+", query))
    for table in TABLES:
        if table.name in words:
            read(spark, table, root).createOrReplaceTempView(table.name)
    for other in words & VIEWS.keys() - {name}:  # a view may build on another
        view(spark, root, other, live).createOrReplaceTempView(other)
    if "live" in words:
        _register_live(spark, live)
    return spark.sql(query)


def _register_live(spark: SparkSession, live: list[dict[str, str]]) -> None:
    columns = ("task", "recipe_id", "scorer_id", "rule_id")
    schema = ", ".join(f"{name} string" for name in columns)
    spark.createDataFrame([tuple(entry[name] for name in columns) for entry in live], schema).createOrReplaceTempView(
        "live"
    )
