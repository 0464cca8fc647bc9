"""What several jobs share: recipes and scorers, scopes, rollouts, scoring, ingestion, labels files."""
