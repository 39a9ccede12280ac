"""Lists the exit codes of the commands: one for each kind of error."""

from __future__ import annotations

from collections.abc import Mapping

EXIT_USAGE = 2

#: Exit codes of errors, by the first word of the command; the most specific class counts, and any other error
#: is a bug. Errors are named and not imported, so that no command loads the modules of another one.
EXIT_CODES: Mapping[str, Mapping[str, int]] = {
    "predict": {
        "streamer.client.errors.BadInput": EXIT_USAGE,
        "streamer.client.errors.SourceFailed": EXIT_USAGE,
        "streamer.client.errors.SaveFailed": 5,
    },
    "push": {
        "streamer.client.errors.BadInput": EXIT_USAGE,
        "streamer.client.errors.ClientError": 3,
        "streamer.client.errors.SourceFailed": 4,
        "streamer.client.errors.SaveFailed": 5,
    },
    "models": {
        "streamer.model_zoo.download_url.BadRequest": EXIT_USAGE,
        "streamer.client.errors.BadInput": EXIT_USAGE,
        "streamer.client.errors.SourceFailed": EXIT_USAGE,
        "streamer.model_zoo.download_url.PullFailed": 3,
        "inference.core.errors.ModelRefused": 4,
        "streamer.model_zoo.download_url.CannotWrite": 5,
        "streamer.model_zoo.download_url.WrongFile": 6,
        "streamer.model_zoo.download_url.NotTrusted": 7,
        "streamer.model_zoo.download_url.Unavailable": 8,
        "inference.core.errors.DeviceUnavailable": 8,
    },
    "keys": {"streamer.access.key_ring.BadKeyFile": EXIT_USAGE},
    "samples": {
        "streamer.datasets.sample.BadRequest": EXIT_USAGE,
        "streamer.datasets.sample.CannotRead": 3,
        "streamer.datasets.sample.CannotWrite": 3,
        "streamer.datasets.sample.DamagedSample": 4,
        "streamer.datasets.label_file.BadSet": 4,
    },
    "drift": {
        "streamer.datasets.sample.BadRequest": EXIT_USAGE,
        "streamer.datasets.sample.CannotRead": 3,
        "streamer.datasets.sample.CannotWrite": 3,
    },
    "labels": {
        "streamer.datasets.sample.BadRequest": EXIT_USAGE,
        "streamer.datasets.sample.CannotRead": 3,
        "streamer.datasets.sample.CannotWrite": 3,
        "streamer.datasets.sample.DamagedSample": 4,
        "streamer.datasets.annotations.BadLabels": 4,
        "streamer.datasets.label_file.BadSet": 4,
    },
    "train": {
        "streamer.training.errors.BadRequest": EXIT_USAGE,
        "streamer.training.errors.UnusableCheckpoint": EXIT_USAGE,
        "streamer.datasets.label_file.BadSet": EXIT_USAGE,
        "streamer.training.errors.NotRecoverable": 4,
        "streamer.training.errors.Busy": 5,
        "builtins.OSError": 5,
    },
    "evaluate": {
        "streamer.datasets.sample.BadRequest": EXIT_USAGE,
        "streamer.datasets.sample.CannotRead": 3,
        "streamer.datasets.sample.CannotWrite": 3,
        "streamer.datasets.sample.DamagedSample": 4,
        "streamer.datasets.label_file.BadSet": 4,
        "inference.core.errors.ModelRefused": 4,
        "inference.core.errors.DeviceUnavailable": 8,
    },
    "promote": {
        "streamer.promotion.errors.Worse": 1,
        "streamer.promotion.errors.BadRequest": EXIT_USAGE,
        "streamer.datasets.sample.BadRequest": EXIT_USAGE,
        "streamer.datasets.sample.CannotRead": 3,
        "streamer.datasets.sample.DamagedSample": 4,
        "streamer.datasets.label_file.BadSet": 4,
        "inference.core.errors.ModelRefused": 4,
        "streamer.datasets.sample.CannotWrite": 5,
        "builtins.OSError": 5,
        "inference.core.errors.DeviceUnavailable": 8,
    },
    "versions": {
        "streamer.client.administration.ChangeRefused": 1,
        "streamer.client.errors.BadInput": EXIT_USAGE,
        "streamer.client.errors.ConnectionFailed": 3,
    },
    "simulate": {"streamer.simulation.errors.BadScenario": EXIT_USAGE},
}
#: Commands that need the extra `server`, and their exit codes when it is not installed.
SERVER_COMMANDS = {
    "serve": 3,
    "models": 8,
    "keys": EXIT_USAGE,
    "samples": EXIT_USAGE,
    "drift": EXIT_USAGE,
    "labels": EXIT_USAGE,
    "train": 8,
    "simulate": EXIT_USAGE,
}

#: Commands that need more than the extra `server`: the extra, which includes it.
COMMAND_EXTRAS = {"train": "train", "evaluate": "evaluate", "promote": "evaluate"}


def exit_code(command: str, error: Exception) -> int | None:
    """Return the exit code for an error, by the first word of the command; None for a bug."""
    codes = EXIT_CODES.get(command, {})
    names = (f"{kind.__module__}.{kind.__name__}" for kind in type(error).__mro__)
    return next((codes[name] for name in names if name in codes), None)
