"""How a kind of bad input is written down."""

from collections.abc import Callable
from dataclasses import dataclass

from program import Medvqa

# Arguments of the command, and keywords for Medvqa.run.
Command = tuple[tuple, dict]


@dataclass
class Kind:
    """One row of the table."""

    name: str
    code: int
    culprit: tuple[str, ...]
    prepare: Callable[[Medvqa], Command]
    may_write: tuple[str, ...] = ()  # how names in the scratch folder that may change begin


def train(config, *flags, **options) -> Command:
    """medvqa train with that configuration."""
    return ("train", "--config", config, *flags), options


def setting(name: str, code: int, text: str, *culprit: str, flags: tuple = ()) -> Kind:
    """The fixture's configuration with --set TEXT."""
    return Kind(name, code, culprit,
                lambda medvqa: train(medvqa.config(), "--set", text, *flags))


def arguments(name: str, words: tuple, *culprit: str) -> Kind:
    """A wrong command line."""
    return Kind(name, 2, culprit, lambda medvqa: (
        tuple(medvqa.config() if word == "CONFIG" else word for word in words), {}))
