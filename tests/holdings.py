"""A holding in memory: it keeps what an experiment writes down, as a cluster does that outlives the process."""

import json


class MemoryHolding:
    """Keeps the facts and the state of one rollout; `left` says whether traffic was left to a guard."""

    def __init__(self, **facts):
        self.facts, self.rollout, self.left = facts, None, False

    def check(self):
        """Nobody else holds it."""

    def save_state(self, **facts):
        """Keep facts."""
        self.facts |= facts

    def saved_state(self):
        """Return the facts."""
        return dict(self.facts)

    def save_rollout(self, state):
        """Keep the state as JSON."""
        self.rollout = None if state is None else json.dumps(state, allow_nan=False)

    def saved_rollout(self):
        """Return the state."""
        return None if self.rollout is None else json.loads(self.rollout)

    def leave_to_guard(self):
        """Note it."""
        self.left = True
