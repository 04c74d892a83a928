"""A rollout session: `Experiment` and its parts. Each part owns its state and uses only earlier ones."""
