"""Public doubles: a simulated cluster, seeded and faster than time, for teaching, for tests and for trying a plan.

``connect("simulated:slow")`` plays a scenario of `SCENARIOS`, ``connect("simulated:slow?seed=3")`` another throw of the
same dice. Nothing that claims to be measured may come from it; every chart and report made with it says that it is simulated.
"""

from canarykit.testing.scenarios import SCENARIOS, Behaviour, Scenario
from canarykit.testing.simulated import SimulatedClock, SimulatedCluster, from_address

__all__ = ["SCENARIOS", "Behaviour", "Scenario", "SimulatedClock", "SimulatedCluster", "from_address"]
