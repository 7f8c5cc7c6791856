"""The subcommands of ``gpudiag``, by what they are about, and what they share.

Each is imported when it is asked for, and imports what it needs inside its body: a run pays for
itself alone, and ``gpudiag --help`` loads neither pandas nor the rules.
"""
