"""`python -m socket_server.cli`: the same as `socket-server`."""

import sys

from socket_server.cli import main

sys.exit(main())
