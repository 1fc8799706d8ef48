"""Which pool holds which expert."""

from wanray.config import RenderConfig
from wanray.registry import Model

DENOISE_POOLS = {"single": "denoise", "high": "denoise_high", "low": "denoise_low"}


def choose_placement(config: RenderConfig, model: Model) -> str:
    """`single`, `split`, `swap` or `both`; where nobody says, two experts get a pool each on Ray, and share
    one locally.
    """
    if len(model.experts) == 1:
        return "single"
    if config.placement != "auto":
        return config.placement
    return "split" if config.engine == "ray" else "both"


def possible_placements(config: RenderConfig, model: Model) -> tuple[str, ...]:
    """What `denoise.gpus` may choose from."""
    if len(model.experts) == 1:
        return ("single",)
    if config.placement != "auto":
        return (config.placement,)
    return ("split", "both") if config.denoise.offloads else ("split", "both", "swap")


def placement_reason(config: RenderConfig, placement: str) -> str:
    """Why it is so, for people, where it was not searched for."""
    if placement == "single":
        return "one expert, one pool"
    what = {
        "split": "two experts, a pool each",
        "both": "two experts, both in every gang",
        "swap": "two experts, one at a time in every gang",
    }[placement]
    if config.placement != "auto":
        return f"{what}, as configured"
    return f"{what}, since engine is {config.engine}"


def pool_experts(placement: str, model: Model) -> dict[str, tuple[str, ...]]:
    """Denoise pool -> experts it holds, in the order of work."""
    if placement == "split":
        return {DENOISE_POOLS[expert]: (expert,) for expert in model.experts}
    return {"denoise": model.experts}
