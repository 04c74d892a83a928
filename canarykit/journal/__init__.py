"""The journal: an append-only record of one rollout, in one SQLite file.

It can be opened while it is written, and judged again later under other margins. Passwords and tokens in its texts are
masked (`canarykit.masking`). Tables:

============  =========================================================================================
``facts``     key, value (JSON): service, versions, guardrails, plan, …
``windows``   id, start, end (seconds since the epoch), weight (percent), left_out, note, judged
``counts``    window, name (``outcome``, ``latency``, ``answers``), who (``stable``, ``canary``, or a
              replica such as ``canary-1``), cells (JSON object: index of the cell → requests)
``weights``   time, asked (percent), before (percent), seconds until in force
``events``    time, kind, text
``loads``     id, summary (JSON) of each traffic sender so far
``judged``    window, news (JSON): how the windows up to there were judged, and their sums (`canarykit.digest`)
``evidence``  window, state (JSON): the judge's evidence after the last window of ``judged``
============  =========================================================================================
"""

from canarykit.journal.journal import Journal
from canarykit.journal.reader import JournalReader
from canarykit.journal.secrets import mask

__all__ = ["Journal", "JournalReader", "mask"]
