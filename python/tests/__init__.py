"""The tests of pylok. They run against real daemons of their own, on loopback."""
