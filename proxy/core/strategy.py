"""By what means models stay loaded."""

from enum import StrEnum

from normalizer import SharedLoaders


class Strategy(StrEnum):
    """`pins` carries loader chains along, `inspire` uses the Inspire Pack's shared loaders too, `off` does neither."""

    PINS = "pins"
    INSPIRE = "inspire"
    OFF = "off"


def in_effect(wanted: Strategy, loaders: SharedLoaders) -> Strategy:
    """What can be done of what is wanted, with the shared loaders that this ComfyUI has."""
    return Strategy.PINS if wanted is Strategy.INSPIRE and not loaders else wanted


NOT_INSTALLED = '[normalizer] strategy = "inspire", but this ComfyUI has no shared loaders: models are pinned instead.'
INSTALL = 'Install ComfyUI-Inspire-Pack and restart ComfyUI, or set strategy = "pins".'
