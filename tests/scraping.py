"""What a page of metrics says, read by Prometheus's own parser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from kimi_provider.errors import KimiError, codes
from kimi_provider.upstream import Upstream

_CODES = {*codes(), KimiError.code, "credential_missing"}
_MODELS = {*Upstream.load().models, "agent", "other"}
_PROTOCOLS = {"connect", "rest"}

#: Every metric of ours with its type, and all that its labels may ever say.
FAMILIES: dict[str, tuple[str, dict[str, set[str]]]] = {
    "kimi_first_event_seconds": ("histogram", {"protocol": _PROTOCOLS, "model": _MODELS}),
    "kimi_answers": ("counter", {"protocol": _PROTOCOLS, "model": _MODELS}),
    "kimi_failures": ("counter", {"code": _CODES}),
    "kimi_failovers": ("counter", {"code": _CODES}),
    "kimi_token_refreshes": ("counter", {"outcome": {"renewed", "refused", "failed"}}),
    "kimi_calls": ("gauge", {"state": {"waiting", "running"}}),
    "kimi_account_store_up": ("gauge", {}),
    "kimi_accounts": (
        "gauge", {"state": {"stopped", "paused", "refused", "expired", "cooling", "expiring", "ok"}},
    ),
    "kimi_accounts_usable": ("gauge", {}),
    "kimi_accounts_expiring": ("gauge", {"days": {"1", "7", "30"}}),
    "kimi_accounts_soonest_expiry_seconds": ("gauge", {}),
}  # fmt: skip


@dataclass(frozen=True)
class Scrape:
    """Ours of one page, each sample once."""

    types: dict[str, str]
    samples: list[Sample]

    @classmethod
    def of(cls, text: str) -> Self:
        families = [one for one in text_string_to_metric_families(text) if one.name.startswith("kimi_")]
        # When a counter began is a gauge of its own in this format.
        families = [one for one in families if not one.name.endswith("_created")]
        names = [one.name for one in families]
        assert sorted(names) == sorted(set(names)), "a family stands on the page once"
        samples = [sample for one in families for sample in one.samples]
        keys = [(sample.name, *sorted(sample.labels.items())) for sample in samples]
        assert len(keys) == len(set(keys)), "and so does a sample"
        return cls({one.name: one.type for one in families}, samples)

    def __call__(self, name: str, **labels: str) -> float:
        """The sum of all samples of `name` that have `labels`; 0 when there are none."""
        return sum(one.value for one in self.samples if one.name == name and labels.items() <= one.labels.items())

    def check_labels(self) -> None:
        """Nothing is there that is not foreseen."""
        for name, kind in self.types.items():
            assert kind == FAMILIES[name][0], name
        for sample in self.samples:
            base = sample.name
            for suffix in ("_total", "_bucket", "_sum", "_count"):
                base = base if base in FAMILIES else base.removesuffix(suffix)
            allowed = FAMILIES[base][1]
            labels = {name: value for name, value in sample.labels.items() if name != "le"}
            assert labels.keys() == allowed.keys(), sample
            assert all(value in allowed[name] for name, value in labels.items()), sample
