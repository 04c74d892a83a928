"""Serve one model."""

import sys

from canarykit.serving import main

sys.exit(main())
