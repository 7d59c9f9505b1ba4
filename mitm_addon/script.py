"""For `mitmdump -s .../mitm_addon/script.py`, in any mitmproxy, also the standalone build and without our package.

mitmproxy loads a script by its path, outside of any package: the folder above becomes importable here.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mitm_addon.redirect import Redirector  # only now can it be found

addons = [Redirector()]
