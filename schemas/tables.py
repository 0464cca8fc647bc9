"""All tables of a lake, in the order in which a row passes through them."""

from schemas.decisions import DECISIONS
from schemas.facets import FACETS
from schemas.files import FILES
from schemas.imports import IMPORTS
from schemas.inputs import INPUTS
from schemas.labels import LABELS
from schemas.metrics import METRICS
from schemas.quality import QUALITY
from schemas.quarantine import QUARANTINE
from schemas.recipes import RECIPES
from schemas.rl_rollouts import RL_ROLLOUTS
from schemas.runs import RUNS
from schemas.scorers import SCORERS
from schemas.scores import SCORES
from schemas.splits import SPLITS
from schemas.table import Table
from schemas.texts import TEXTS
from schemas.trace_quality import TRACE_QUALITY
from schemas.traces import TRACES
from schemas.videos import VIDEOS

TABLES: tuple[Table, ...] = (
    FILES,
    VIDEOS,
    LABELS,
    SPLITS,
    FACETS,
    TEXTS,
    RECIPES,
    IMPORTS,
    TRACES,
    TRACE_QUALITY,
    SCORERS,
    SCORES,
    DECISIONS,
    INPUTS,
    QUARANTINE,
    QUALITY,
    RUNS,
    METRICS,
    RL_ROLLOUTS,
)
BY_NAME = {table.name: table for table in TABLES}
