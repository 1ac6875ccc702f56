"""`ContrastiveSystem`: what every published system shares. A system says how it embeds and what it loses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.functional import normalize

from counterpoint.common.data.samplers import BatchSampler, ShuffleSampler
from counterpoint.common.errors import InputError
from counterpoint.common.metrics.scores import score_named
from counterpoint.common.trainers.assets import Assets
from counterpoint.common.trainers.config_files import to_dict
from counterpoint.common.trainers.configs import ScheduleConfig
from counterpoint.common.trainers.inputs import Input
from counterpoint.common.trainers.loader import Datasets
from counterpoint.common.trainers.plugins import Plugin
from counterpoint.common.trainers.schedules import Schedule
from counterpoint.common.trainers.sharding import list_entries
from counterpoint.common.trainers.stages import Progress, Stage
from counterpoint.common.trainers.training import Training


class ContrastiveSystem(Training):
    """Base of all systems. A subclass defines `Config`, `modalities`, `datasets`, `embed` and `losses`:

    - `embed(batch)` returns one tensor per modality or view, row i belonging to sample i;
    - `losses(batch, embeddings)` returns terms, weighted by `loss_weights` and summed: a scalar each, or rows (a vector
      with one loss per sample), which plug-ins may weigh and of which the mean over the whole batch counts.

    `inputs` says of the entries of a batch that `encode` reads what they are, for those who use an exported encoder.
    `metric` names the score by which embeddings answer one another in evaluation and search (see `metrics.SCORES`).

    The base gives optimisers with parameter groups, schedules, EMA teachers, cached gradients
    (`train.micro_batch_size`), plug-ins (`train.plugins`), clipping, non-finite checks, validation and logging.
    Systems with several optimisers (`optimizer_parts`), alternating or meta steps override `step` and use `gradients`
    and `update`; stages without gradients (`Stage.gradient_free`) define `observe`.

    The step order: schedules set values for step n, gradients, clipping, optimiser, EMA teachers, `after_update`. At
    the end of an epoch: `after_epoch`, the plug-ins' `after_epoch`, the checkpoint.
    """

    Config: ClassVar[type]
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    modalities: ClassVar[tuple[str, ...]] = ()
    loss_weights: ClassVar[dict[str, float]] = {}
    metric: ClassVar[str] = "cosine"
    inputs: ClassVar[Mapping[str, Input]] = {}

    def __init__(self, config: Any, assets: Assets | None = None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.config = config
        self.assets = Assets() if assets is None else assets
        self.continued: Path | None = None
        self._data: Any = None
        self.given = False  # trained on data that the configuration does not name
        self.progress = Progress()
        self.stage = Stage()
        self.plugins: dict[str, Plugin] = {}
        self.sampler: BatchSampler | None = None
        self.total_steps = self.epochs = 1
        self.schedules: dict[str, Schedule] = {}
        self.scheduled: dict[str, float] = {}
        self.run_dir: Path | None = None
        self._frozen: set[str] | None = None
        self._staged: list[Any] = []
        self._weighed: set[str] = set()
        self._validation: dict[str, Any] = {}
        self._records: dict[str, Any] = {}
        self._readings: dict[str, float] = {}

    # What a system defines -------------------------------------------------------------------------------------------

    def datasets(self) -> Datasets:
        """Train, validation and test data of the current stage."""
        raise TypeError(f"{type(self).__name__} does not define datasets()")

    def evaluation_datasets(self) -> Datasets:
        """The splits as a run is evaluated, embedded, searched and given heads; here those that it trains on. Override
        where what is trained on (an interaction, a pair) is nothing that is asked for later (a user)."""
        return self.datasets()

    def embed(self, batch: Any) -> dict[str, Tensor]:
        """Embeddings that the losses contrast."""
        raise TypeError(f"{type(self).__name__} does not define embed()")

    def losses(self, batch: Any, embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Loss terms: scalars, or rows with one value per sample."""
        raise TypeError(f"{type(self).__name__} does not define losses()")

    # What a system may define ----------------------------------------------------------------------------------------

    @classmethod
    def read(cls, config: Any, assets: Assets | None = None) -> Any:
        """What the configuration names, all splits of it, in the form that `datasets` starts from (`self.data`).

        Without assets the form is the data's own, and `learn` looks at it; with them it is the form they describe.
        """
        return None

    @classmethod
    def learn(cls, config: Any, data: Any) -> Assets:
        """The facts of the training split that the network's shape or its inputs depend on; `data` is `read`'s.

        Called once, for a new run. `__init__(config, assets)` reads no data.
        """
        return Assets()

    @classmethod
    def extend(cls, assets: Assets, config: Any, data: Any) -> Assets:
        """The facts of a run that goes on with other data (`continue_from`); here they stay as they are.

        Systems whose tables grow (new words, users, items) return assets in which the old names keep their places.
        """
        return assets

    def grow(self, assets: Assets) -> None:
        """Take extended assets: tables grow, old rows keep their bits. Called where `extend` changed them."""
        raise TypeError(f"{type(self).__name__} extends its assets and does not define grow()")

    def initialize(self) -> None:
        """Called once before the first step of a new run: initial weights that are read or computed, not drawn."""

    @property
    def pretrained(self) -> ContrastiveSystem:
        """The system that knows the data: itself; under a head, the one that the head stands on."""
        return self

    @property
    def data(self) -> Any:
        """What `read` gives, read at the first use."""
        if self._data is None:
            if self.given and not getattr(getattr(self.config, "data", None), "manifest", ""):
                raise InputError(
                    f"{self.run_dir or type(self).__name__}: was trained on data given in Python, which a run does not "
                    "keep; name data to use (--manifest)"
                )
            self._data = type(self).read(self.config, self.assets)
        return self._data

    def use(self, data: Any) -> Any:
        """Take data from elsewhere instead of reading what the configuration names."""
        self._data = data
        return self

    def encode(self, batch: Any, modality: str | None = None) -> dict[str, Tensor]:
        """Embeddings for evaluation, search and export; here the contrast embeddings, at unit length where `metric`
        says that their length does not count."""
        unit = score_named(self.metric).unit
        found = {k: normalize(v, dim=-1) if unit else v for k, v in self.embed(batch).items()}
        return found if modality is None else {modality: found[modality]}

    def features(self, batch: Any) -> dict[str, Tensor]:
        """Representations for heads and probes, one row per sample; here the contrast embeddings.

        Override to return what stands before the projector: it often discards what a task needs (see `Projector`).
        """
        return self.embed(batch)

    def dense_features(self, batch: Any) -> dict[str, Tensor]:
        """Representations of every place of a sample, [batch, *places, width], for dense tasks (see `Dense`)."""
        raise InputError(f"{type(self).__name__} has no features per place: task=dense needs dense_features()")

    def before_finetune(self) -> None:
        """Called before a head is put on: a system that evaluates averaged weights makes them the ones that train."""

    def preprocessing(self) -> dict[str, Any]:
        """How raw data become this system's inputs, as plain data; travels with `save_pretrained`."""
        recipe = to_dict(getattr(self.config, "data", {}))
        recipe |= {"assets": self.assets.recipe()} if self.assets else {}
        return recipe | ({"inputs": {k: v.recipe() for k, v in self.inputs.items()}} if self.inputs else {})

    def example(self) -> Any:
        """A batch from which an export is traced; None for the first samples of the data."""
        return None

    def stages(self) -> Sequence[Stage]:
        """The training's stages, in order; `self.stage` is the current one."""
        return (Stage(),)

    def on_stage_start(self, stage: Stage) -> None:
        """Called before a stage's data and optimiser are built (also on resume)."""

    def batch_sampler(self, dataset: Any, batch_size: int, seed: int) -> BatchSampler:
        """How the training batches are drawn. While a stage runs the sampler is `self.sampler`, so that `after_epoch`,
        plug-ins and callbacks may change it (`self.sampler.update(neighbours)`)."""
        return ShuffleSampler(len(dataset), batch_size, seed)

    def optimizer_parts(self) -> Sequence[tuple[str, ...]]:
        """Prefixes of the parameters' names for each optimiser, in the order of `self.optimizers()`; here one optimiser
        has them all. Learning rates of their own come from `optim.groups`."""
        return ((),)

    def schedule_configs(self) -> dict[str, tuple[ScheduleConfig, float]]:
        """More scheduled quantities, name -> (schedule, peak); read in `losses` as `self.scheduled[name]`.

        `ema_momentum` is used for the EMA teachers.
        """
        return {}

    def named_schedules(self, total: int) -> dict[str, Schedule]:
        """Schedules with values of their own (`momentum` from 0.996 to 1); here built from `schedule_configs`."""
        return {k: Schedule.from_config(c, base, total) for k, (c, base) in self.schedule_configs().items()}

    def after_update(self) -> None:
        """Called after each step that trains: queues, clamps, per-sample state."""

    def observe(self, batch: Any, embeddings: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What a gradient-free stage takes from a batch (sums of clusters, a memory); returns figures to record.

        The embeddings are those of evaluation. What is learnt stands in buffers, which travel in the checkpoints; over
        several ranks every one needs all rows: `gather_rows`.
        """
        raise TypeError(f"{type(self).__name__} has a gradient-free stage and does not define observe()")

    def after_epoch(self) -> None:
        """Called at the end of each epoch, before its checkpoint: centroids from sums, new batches for the sampler."""

    def sharded_parts(self) -> Sequence[nn.Module]:
        """Parts whose weights `train.strategy=fsdp` gathers one at a time; here the entries of every `nn.ModuleList`.

        Such a part is used by calling it alone, never by reaching for its weights. The rest of the system is gathered
        for the whole of `embed` and `losses`, so anything goes there.
        """
        return list_entries(self)
