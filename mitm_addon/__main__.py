"""`python -m mitm_addon` is `kimi-mitm`."""

import sys

from .cli import main

sys.exit(main())
