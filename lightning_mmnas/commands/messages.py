"""What the user is told when something goes wrong: one short message in place of a long one, or of a traceback."""

from __future__ import annotations

import difflib
import errno
import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable

from omegaconf.errors import OmegaConfBaseException

from lightning_mmnas.commands.parser import FIT_OPTIONS, nearest
from lightning_mmnas.errors import MMNASError

# Lines of jsonargparse's errors that name types but not the mistake.
_NOISE = re.compile(
    r"Does not validate against any of the Union subtypes|Subtypes: .*|Errors:"
    r"|Expected a <class 'NoneType'>.*|Given value type: .*|Given value: NestedArg.*|Problems? with given class_path .*"
    r"|Not a valid subclass of \w+|Subclass types expect one of:|a class path \(str\)"
    r"|Import path [\w.]+ does not correspond to a subclass of ReduceLROnPlateau"
    r"|a dict with(out)? .*|Type collections\.abc\.Callable.* callable class:"
)
_CLASS_PATH = re.compile(r"(?:Problems? with given class_path|class_path=)\s*'([\w.]+)'")
_OPTION = re.compile(r"Option '([\w.]+)' is not accepted")
# An option of a class that is not named: the base class refuses it.
_NO_CLASS = re.compile(r"with given class_path 'torch\.optim\.(Optimizer|lr_scheduler\.LRScheduler)'")
_TRAINER_OPTION = re.compile(r"(?:accept option '|arguments: --)trainer\.(\w+)")
_UNRECOGNISED = re.compile(r"unrecognized arguments: --([\w.+]+)")
_UNKNOWN_CLASS = re.compile(r"Expected a dot import path string: (\S+)")
_NO_MODEL = re.compile(r"arguments are required: (fit|validate|test|predict)\.model\b")
_ELSEWHERE = {"batch_size": "data.init_args.batch_size", "lr": "model.init_args.lr"}
_LOST = re.compile(r"gloo.*(Connection (closed|reset) by peer|Broken pipe)|remote process exited|NCCL.*peer", re.DOTALL)
# What torch puts before the message of an error in a worker of a loader: its whole traceback.
_WORKER = re.compile(r"Caught (\w+) in DataLoader worker process \d+\.\nOriginal .*\n[\w.]*\1: ", re.DOTALL)
# What the parser makes of keys that are numbers without a space behind the colon.
_NO_SPACE = "keys and values are written {1: 2}, with a space behind the colon"
# Arguments of a class that no file has named so far, as of a stage's configuration before common.yaml.
_NO_CLASS_YET = re.compile(r'Parser key "(model|data)":.*(?:Given|Got) value: \{\'init_args\'', re.DOTALL)
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
# What else a parser says of a misspelt class.
_NO_PATH = re.compile(r"Expected a path but .* either not accessible or invalid|Expected a <class '[\w.]+'>")
_LOGGERS = ("mlflow", "wandb")
"""Packages that talk to a server: what they raise is of it, or of the way to it."""
_LONG = 60  # characters; a longer value is a whole section of the configuration


def shorten_parser_error(message: str) -> str:
    """The part of a parser's message that names the mistake, with the nearest accepted name."""
    if command := _NO_MODEL.search(message):
        return f"no model is given: --config FILE of a stage, or --model CLASS_PATH; see mmnas {command[1]} --help"
    if section := _NO_CLASS_YET.search(message):
        return (
            f"{section[1]} has init_args and no class_path so far: files count in their order, so give the one that "
            "names the class first, as in --config common.yaml --config FILE"
        )
    noise = (_NOISE, _NO_PATH) if _UNKNOWN_CLASS.search(message) else (_NOISE,)
    kept: list[str] = []
    for line in message.splitlines():
        text = line.strip().removeprefix("- ")
        text = re.sub(r"Type collections\.abc\.Callable.* callable class: ", "", text)
        value = re.search(r"(?:Got|Given) value: (.*)$", text)
        if value is not None and len(value.group(1)) > _LONG:
            text = text[: value.start()]
        text = text.strip().rstrip(".")
        if text and not any(part.fullmatch(text) for part in noise) and text not in kept:
            kept.append(text)
    short = re.sub(r'Parser key "([^"]+)":', r"\1:", " ".join(kept))
    short = re.sub(r"Expected a typing\.Literal(\[[^]]*\])", r"expected one of \1", short)
    short = short.replace("unsupported operand type(s) for +: 'int' and 'str'", _NO_SPACE)
    short = _UNKNOWN_CLASS.sub(r"there is no class '\1' known by its name alone", short)
    if without := _NO_CLASS.search(message):
        option = "optimizer" if without[1] == "Optimizer" else "lr_scheduler"
        return f"{short}; name its class before it: --{option} CLASS"
    near = _nearest(message)
    return f"{short}; did you mean {near!r}?" if near else short


def shorten_interpolation_error(error: OmegaConfBaseException) -> str:
    """What is wrong with a `${…}` and where it stands."""
    reason = re.sub(r"'(fit|validate|test|predict)\.", "'", str(error).splitlines()[0].strip())
    key = (error.full_key or "").partition(".")[2]  # without the command's name
    place = f" in {key}" if key else ""
    if "'shared." in reason:
        return f"bad ${{…}}{place}: {reason}; `shared` of the last file that has one counts, as a whole"
    return f"bad ${{…}}{place}: {reason}; it must name a key of the configuration, as ${{run_dir}}"


def _nearest(message: str) -> str | None:
    unknown, option = _UNKNOWN_CLASS.search(message), _OPTION.search(message)
    if unknown is not None:
        from lightning.pytorch import callbacks, loggers
        from torch import optim

        import lightning_mmnas

        places = (lightning_mmnas, callbacks, loggers, optim, optim.lr_scheduler)
        names = [name for place in places for name in place.__all__]
        return next(iter(difflib.get_close_matches(unknown.group(1), names, n=1)), None)
    trainer_option = _TRAINER_OPTION.search(message)
    if trainer_option is not None:
        from lightning.pytorch import Trainer

        names = list(inspect.signature(Trainer).parameters)
        return next(iter(difflib.get_close_matches(trainer_option.group(1), names, n=1)), None)
    unrecognised = _UNRECOGNISED.search(message)
    if unrecognised is not None:
        head, _, rest = unrecognised.group(1).partition(".")
        if not rest:
            from lightning.pytorch import Trainer

            if head in _ELSEWHERE or head in inspect.signature(Trainer).parameters:
                return f"--{_ELSEWHERE.get(head, f'trainer.{head}')}"
        known = nearest(head, FIT_OPTIONS)
        return f"--{known}.{rest}".rstrip(".") if known and known != head else None
    if option is None:
        return None
    # The innermost class named in the message is the one that refuses the option.
    for class_path in reversed(_CLASS_PATH.findall(message)):
        module, _, name = class_path.rpartition(".")
        try:
            accepted = inspect.signature(getattr(importlib.import_module(module), name)).parameters
        except (ImportError, AttributeError, ValueError, TypeError):
            continue
        near = difflib.get_close_matches(option.group(1), list(accepted), n=1)
        if near:
            return near[0]
    return None


def explain(error: BaseException) -> str | None:
    """The message for a user's mistake; None for an error of ours, which keeps its traceback."""
    if isinstance(error, KeyboardInterrupt):
        return str(error) or "interrupted"
    if isinstance(error, MMNASError):
        return _WORKER.sub("", str(error)).strip()
    rules: list[tuple[str, str, Callable[[str], str]]] = [
        ("argparse", "ArgumentError", shorten_parser_error),
        ("omegaconf", "OmegaConfBaseException", lambda text: text.splitlines()[0]),
        ("lightning.fabric.utilities.exceptions", "MisconfigurationException", str.strip),
    ]
    for module, name, shorten in rules:
        kind = getattr(sys.modules.get(module), name, None) or getattr(sys.modules.get(f"{module}.errors"), name, None)
        if kind is not None and isinstance(error, kind):
            return shorten(str(error))
    text = str(error)
    if isinstance(error, RuntimeError) and "Error(s) in loading state_dict" in text:
        keys = re.sub(r"\s+", " ", text)
        return f"the checkpoint belongs to another architecture: {keys[:300]}"
    if isinstance(error, RuntimeError) and _LOST.search(text):
        return (
            "another process of this training has ended, and with it this one; what that one said stands above, or in "
            "its own log. The same command, with --ckpt_path where it is mmnas fit, goes on from the last checkpoint"
        )
    if isinstance(error, RuntimeError) and text.startswith("Symlink loop from"):  # of pathlib, as `report` resolves it
        return f"{text.partition(' from ')[2]} is a link that leads to itself"
    if isinstance(error, RuntimeError) and "within local rank has zero length" in text:
        return "one of the ranks has no batch of a loader; give each of them some samples, or use fewer ranks"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.strerror}: {error.filename}"
    if isinstance(error, OSError) and error.errno in _DISK:
        return f"{error.strerror}; make room on the disk that is written to, and the same command goes on"
    package = type(error).__module__.partition(".")[0]
    if package in _LOGGERS:
        reason = (text or type(error).__name__).splitlines()[0].rstrip(".")
        return f"the logger {package}: {reason}; the same command without it, or once it works, goes on"
    place = _place(error)
    if place == "lightning.fabric.utilities.apply_func" and "meta tensor" in text:
        return (
            "a batch holds a meta tensor, which has no values; let the data set, or the collate function, give tensors "
            "that have"
        )
    refusing = ("lightning.", "torch.optim.", "torch.nn.utils.prune")
    if isinstance(error, ValueError | RuntimeError | ModuleNotFoundError) and place.startswith(refusing):
        return " ".join(text.split())
    if isinstance(error, AttributeError) and place.startswith("lightning.pytorch.callbacks."):
        return f"{place} does not fit this module: {text}"
    return None


def _place(error: BaseException) -> str:
    """The Python module in which an error was raised; in `lightning` or `torch.optim` it is a refusal in its own words.

    Of an attribute that a PyTorch module lacks it is that which asked for it.
    """
    modules = [str(frame.f_globals.get("__name__")) for frame, _ in traceback.walk_tb(error.__traceback__)]
    while isinstance(error, AttributeError) and modules[-1:] == ["torch.nn.modules.module"]:
        modules.pop()
    return (modules or [""])[-1]
