"""All node classes of one simulated installation."""

from simulator.config import SimulatorConfig

from . import images, loaders, plain, sampling, shared, testing
from .base import Node
from .generic import from_file

BUILT_IN: tuple[type[Node], ...] = (
    sampling.KSampler,
    loaders.CheckpointLoaderSimple,
    sampling.CLIPTextEncode,
    loaders.CLIPSetLastLayer,
    sampling.VAEDecode,
    sampling.VAEEncode,
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
    *plain.NODES,
    *testing.NODES,
)


def node_classes(config: SimulatorConfig) -> dict[str, type[Node]]:
    """Classes by name; where a file has a built-in one, it has the file's schema and the built-in behaviour."""
    built_in = {node.NAME: node for node in (*BUILT_IN, *(shared.NODES if config.inspire_pack else ()))}
    if config.object_info_file is None:
        return built_in
    return {**built_in, **from_file(config.object_info_file, built_in)}
