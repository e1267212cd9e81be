"""What the environment says in place of the configuration file."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Mapping

from agentguard.errors import ConfigError

_log = logging.getLogger(__name__)

SETTINGS = ("config", "ledger", "store", "log_key", "signers")
_VARIABLES = {f"AGENTGUARD_{name.upper()}": name for name in SETTINGS}
_OWN = (*SETTINGS, "passphrase")  # the environment of a cluster holds others: AGENTGUARD_PORT
_NEAR = 0.8  # of 1; how much a misspelt name has in common with one of ours


def settings_of(environ: Mapping[str, str]) -> dict[str, str]:
    """The settings that environment variables name, by their names in the file.

    Raises:
        ConfigError: a variable is empty or holds what can't be seen.
    """
    found: dict[str, str] = {}
    for name, value in environ.items():
        if name not in _VARIABLES:
            _warn_of_near_miss(name)
            continue
        if not value or not value.isprintable():
            raise ConfigError(f"{name}: expected one line of visible text; set it or unset it")
        found[_VARIABLES[name]] = value
    return found


def _warn_of_near_miss(name: str) -> None:
    """Other variables are not judged: Kubernetes sets some for a Service named agentguard."""
    prefix, _, own = name[:200].lower().partition("_")
    if prefix != "agentguard" or name == "AGENTGUARD_PASSPHRASE":
        return
    for known in difflib.get_close_matches(own, _OWN, n=1, cutoff=_NEAR):
        _log.warning(
            "the environment variable %s is not read; did you mean AGENTGUARD_%s?",
            ascii(name)[1:-1],
            known.upper(),
        )
