"""Names in configurations of earlier versions, and what they are called now.

Only names of foldnorm's own models are translated: somebody else's class may have an argument that
is called as one of ours was.
"""

import re
from collections.abc import Mapping
from typing import Any

from foldnorm import models
from foldnorm.pipeline.runs.class_paths import current_class_path

CONFIGS = {"recogniser": "sulcus_segmenter"}
# Section of a configuration → old key → what it is called now.
KEYS: Mapping[str, Mapping[str, str]] = {
    "model": {
        "encoder_sees": "encoder_input",
        "form": "variant",
        "mirrors": "tta_flips",
        "most_damage": "max_damage",
        "most_edits": "max_edits",
        "scanned": "scan_prob",
        "truly_damaged": "damaged_column",
    },
    "training": {"learning_rate_of": "learning_rates"},
}
# Class path → argument before its autoencoder was named → what that is called now.
FIRST_STAGE = {
    "foldnorm.models.LatentDDPM": {
        "encoder_channels": "channels",
        "code_channels": "code_channels",
        "kl_weight": "kl_weight",
        "free_nats": "free_nats",
    }
}
OLD_FIRST_STAGE = "foldnorm.models.BetaVAE"
WORD = re.compile(
    r"--(?P<section>model|training)(?P<path>\.(?:init_args\.)?)(?P<key>\w+)(?P<rest>.*)", re.DOTALL
)


def current_config(content: Any) -> Any:
    """Give a configuration, as read from a file, the class path and the keys of today."""
    if not isinstance(content, dict):
        return content
    found = dict(content)
    model, training = found.get("model"), found.get("training")
    if isinstance(model, dict) and isinstance(model.get("class_path"), str):
        model = {**model, "class_path": current_class_path(model["class_path"])}
        if is_own(model["class_path"]) and isinstance(model.get("init_args"), dict):
            model["init_args"] = _renamed(model["init_args"], "model")
            of_first_stage = FIRST_STAGE.get(model["class_path"], {})
            model["init_args"] = _with_first_stage(model["init_args"], of_first_stage)
        found["model"] = model
    if isinstance(training, dict):
        found["training"] = _renamed(training, "training")
    return found


def current_word(word: str, class_path: str) -> str:
    """Give a word of a command line, ``--model.init_args.KEY=VALUE``, the key of today.

    Args:
        word: any; others come back as they are.
        class_path: of the model, as `current_class_path` gives it.
    """
    match = WORD.fullmatch(word)
    if match is None or (match["section"] == "model" and not is_own(class_path)):
        return word
    key = KEYS[match["section"]].get(match["key"], match["key"])
    if match["section"] == "model" and key in FIRST_STAGE.get(class_path, {}):
        key = f"first_stage.init_args.{FIRST_STAGE[class_path][key]}"
    return f"--{match['section']}{match['path']}{key}{match['rest']}"


def is_own(class_path: str) -> bool:
    """Say if a class path, as `current_class_path` gives it, is of a model of foldnorm."""
    return class_path.startswith(f"{models.__name__}.")


def _renamed(content: Mapping[str, Any], section: str) -> dict[str, Any]:
    """Rename old keys; the order of the keys stays."""
    return {KEYS[section].get(key, key): value for key, value in content.items()}


def _with_first_stage(init_args: Mapping[str, Any], old: Mapping[str, str]) -> dict[str, Any]:
    """Gather the arguments of the autoencoder, if they are those of before it was named."""
    given = {old[key]: value for key, value in init_args.items() if key in old}
    others = {key: value for key, value in init_args.items() if key not in old}
    named = {"class_path": OLD_FIRST_STAGE, "init_args": given}
    return {**others, "first_stage": named} if given else others
