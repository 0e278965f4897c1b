"""Makes what Hydra would tell the trials of a sweep, while the plan is made (`hydra_values` puts it together again)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.language.compose import Parsed
from orchestrator.language.hydra_values import Section, section
from orchestrator.language.overrides import as_override, overrides_dirname
from orchestrator.search.space import Assignment


@dataclass(frozen=True)
class HydraFacts:
    """What Hydra would tell the trials that share a choice of group options."""

    config: Section  # the complete `hydra` section
    changes: Section  # what it has that `SweepSpec.hydra` has not
    choices: Mapping[str, Any]
    fixed: Sequence[Parsed]  # overrides of all trials

    def section(self, assignment: Assignment) -> Section:
        """The complete section of one trial, as far as it is known before it starts."""
        return section({"config": self.config}, {**self.of_trial(assignment), "choices": self.choices})

    def of_trial(self, assignment: Assignment) -> Section:
        """What is kept of one trial."""
        task = [*self.fixed, *map(as_override, assignment)]
        form = self.config["job"]["config"]["override_dirname"]
        own = {
            "task": [parsed.input_line for parsed in task],
            "override_dirname": overrides_dirname(task, form),
        }
        return {**own, "config": self.changes} if self.changes else own
