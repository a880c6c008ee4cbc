"""What can go wrong, each with a message of one line that says what to do next."""


class VqzooError(Exception):
    """A run failed for a reason that the user can act on (exit code 1)."""


class UsageError(VqzooError):
    """What was asked makes no sense: an unknown name, a bad option (exit code 2)."""


class ArtifactError(VqzooError):
    """An artifact is damaged, lies, or needs what is not installed here."""


class PluginError(VqzooError):
    """A plugin broke its contract; the message names plugin and layer."""
