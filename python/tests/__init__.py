"""The tests of pylok. They run against real daemons of their own, on loopback."""

import os

# gRPC writes of each handshake that fails, to the terminal, and some are meant to. It
# looks at this when it is first imported.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
