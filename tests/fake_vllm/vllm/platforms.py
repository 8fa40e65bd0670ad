"""What the double runs on."""

import os
from types import SimpleNamespace

current_platform = SimpleNamespace(device_type=os.environ.get("HYRULE_DEVICE", "cpu"))
