"""``python -m lgmc``."""

import sys

from lgmc.main import main

sys.exit(main())
