from normalizer.models import ModelRef
from proxy.core.sizes import ASSUMED, Size, Sizes, SizeSource

GB = 1024**3
BOTH = ModelRef("DualCLIPLoader", ("clip_l.safetensors", "text\\t5xxl.safetensors", "flux"))


def sizes() -> Sizes:
    made = Sizes()
    made.listed({"clip_l.safetensors": GB, "text/t5xxl.safetensors": 5 * GB})
    return made


def test_files_that_a_loader_picks_add_up_whatever_their_slashes() -> None:
    assert sizes().size(BOTH) == Size(6 * GB, SizeSource.FILE)


def test_what_is_configured_for_one_file_leaves_the_others_as_they_are() -> None:
    made = sizes()
    made.configured = {"text/t5xxl.safetensors": 9 * GB}
    assert made.size(BOTH) == Size(10 * GB, SizeSource.CONFIGURED)


def test_without_any_of_its_files_listed_a_measured_step_counts_and_else_it_is_large() -> None:
    unlisted = ModelRef("DualCLIPLoader", ("a", "b"))
    made = sizes()
    assert made.size(unlisted) == Size(ASSUMED, SizeSource.ASSUMED)
    made.measured(unlisted, 3 * GB)
    assert made.size(unlisted) == Size(3 * GB, SizeSource.MEASURED)
    assert made.size(ModelRef("Patch", ())) == Size(0, SizeSource.ASSUMED)
