"""Where a calibrated model goes: always another file than the model."""

from dataclasses import replace
from pathlib import Path

from birder.errors import ConfigError
from birder.model_file import Calibration, check_format, read_model, write_model


def check_output(model: Path, output: Path | None) -> Path:
    """The file that the calibrated model will be; left out, ``NAME-calibrated`` of the same format in this folder.

    Raises:
        ConfigError: It is the model itself, a folder, in a folder that is not there, or there already without having
            been asked for.
        ModelFileError: Its name has another suffix than those of models.
    """
    target = Path(f"{model.stem}-calibrated{model.suffix}") if output is None else output
    check_format(target)
    if target.exists() and target.samefile(model):
        raise ConfigError(f"{target} is the model itself, which is not written over; give another --output")
    if target.is_dir():
        raise ConfigError(f"{target} is a folder; the calibrated model is a file")
    if output is None and target.exists():
        raise ConfigError(f"{target} exists already; --output {target} replaces it")
    if not target.parent.is_dir():
        raise ConfigError(f"{target}: the folder {target.parent} does not exist; create it first")
    return target


def write_calibrated(model: Path, target: Path, calibration: Calibration, *, network: str) -> None:
    """Write a model file once more, with a calibration; weights and all else stay as they are.

    Args:
        model: The model file.
        target: The new one; see ``check_output``.
        calibration: What was found.
        network: Registered name of the network, which the new file tells even if the old one did not.

    Raises:
        OSError: The disk is full, or cannot be written to.
    """
    file = read_model(model)
    state = file.state
    if target.suffix != model.suffix:  # tensors that share memory are possible only in one of the formats
        state = {name: tensor.contiguous().clone() for name, tensor in state.items()}
    write_model(target, replace(file, state=state, network=network, calibration=calibration))
