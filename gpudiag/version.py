"""The version, written once; reading it from the installed metadata costs 20 ms."""

__version__ = "0.1.0"
