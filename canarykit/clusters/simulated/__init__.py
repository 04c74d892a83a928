"""A simulated cluster, seeded and faster than time, for teaching, for tests and for trying a plan.

``connect("simulated:slow")`` plays a scenario of `SCENARIOS`, ``connect("simulated:slow?seed=3")`` another throw of the
same dice. Nothing that claims to be measured may come from it; every chart and report made with it says that it is simulated.
"""

from canarykit.clusters.simulated.cluster import SimulatedClock, SimulatedCluster, from_address
from canarykit.clusters.simulated.scenarios import SCENARIOS, Behaviour, Scenario

__all__ = ["SCENARIOS", "Behaviour", "Scenario", "SimulatedClock", "SimulatedCluster", "from_address"]
