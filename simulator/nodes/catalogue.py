"""All node classes of one simulated installation."""

from simulator.config import SimulatorConfig

from . import images, loaders, sampling, testing
from .base import Node
from .generic import from_file

BUILT_IN: tuple[type[Node], ...] = (
    sampling.KSampler,
    loaders.CheckpointLoaderSimple,
    sampling.CLIPTextEncode,
    loaders.CLIPSetLastLayer,
    sampling.VAEDecode,
    loaders.VAELoader,
    sampling.EmptyLatentImage,
    images.SaveImage,
    images.PreviewImage,
    images.LoadImage,
    images.EmptyImage,
    loaders.LoraLoader,
    loaders.CLIPLoader,
    loaders.UNETLoader,
    loaders.DualCLIPLoader,
    loaders.LoraLoaderModelOnly,
    loaders.ModelSamplingSD3,
    sampling.PreviewAny,
    *testing.NODES,
)


def node_classes(config: SimulatorConfig) -> dict[str, type[Node]]:
    """Classes by name; a built-in one takes the place of the same from a file."""
    found: dict[str, type[Node]] = {} if config.object_info_file is None else from_file(config.object_info_file)
    return {**found, **{node.NAME: node for node in BUILT_IN}}
