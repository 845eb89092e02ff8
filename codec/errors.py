"""The one exception a user may see: a sentence that says what is wrong and what to do."""


class LgmcError(Exception):
    """A mistake or mishap outside the program: a bad file, argument, stream or disk.

    The message is one line, names the file or value, and says what to do about it. The command
    prints it after ``lgmc: `` and exits with 1; a traceback is only for faults of ours.
    """


class VideoError(LgmcError):
    """A video cannot be read or written as asked."""


class VideoWarning(UserWarning):
    """What a video says of itself is not heeded. One line, which the command prints as an error's;
    it goes on."""


class BitstreamError(LgmcError):
    """A .lgmc stream is damaged, truncated, of another version, or outside the limits."""


class ModelError(LgmcError):
    """A model is unknown, its file is damaged, or it is not the one that a stream was made with."""


class ConfigError(LgmcError):
    """A configuration names an unknown key or a value out of range."""


class TrainingError(LgmcError):
    """A training run that cannot go on in a way that makes sense."""


class Diverged(TrainingError):
    """Nearly no step of a run is finite any more."""
