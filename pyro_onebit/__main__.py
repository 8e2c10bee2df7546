"""`python -m pyro_onebit` is the `onebit` command."""

import sys

from pyro_onebit.cli import main

sys.exit(main())
