"""Training: configuration (light), `ContrastiveSystem`, `fit`, run folders. Names load on first use."""

from counterpoint.common.lazy import lazy_exports

_BASE = "counterpoint.common.trainers"
_EXPORTS = {
    "BadPairsConfig": f"{_BASE}.plugin_configs",
    "HardNegativesConfig": f"{_BASE}.plugin_configs",
    "HarmonizeConfig": f"{_BASE}.plugin_configs",
    "WithinClustersConfig": f"{_BASE}.plugin_configs",
    "OptimConfig": f"{_BASE}.configs",
    "ParamGroup": f"{_BASE}.configs",
    "ScheduleConfig": f"{_BASE}.configs",
    "TrainConfig": f"{_BASE}.configs",
    "from_dict": f"{_BASE}.config_files",
    "load_yaml": f"{_BASE}.config_files",
    "override": f"{_BASE}.config_files",
    "save_yaml": f"{_BASE}.config_files",
    "to_dict": f"{_BASE}.config_files",
    "Assets": f"{_BASE}.assets",
    "CollapseMonitor": f"{_BASE}.monitors",
    "ContrastiveSystem": f"{_BASE}.system",
    "Datasets": f"{_BASE}.loader",
    "FinetuneConfig": f"{_BASE}.configs",
    "FinetuneSystem": f"{_BASE}.finetuning",
    "Harmonizer": f"{_BASE}.harmonize",
    "Plugin": f"{_BASE}.plugins",
    "RunResult": f"{_BASE}.run_folder",
    "Schedule": f"{_BASE}.schedules",
    "Stage": f"{_BASE}.stages",
    "Task": f"{_BASE}.tasks",
    "cached_gradients": f"{_BASE}.gradients",
    "create_system": f"{_BASE}.run_folder",
    "empty_system": f"{_BASE}.run_folder",
    "create_finetune": f"{_BASE}.finetuning",
    "export": f"{_BASE}.exporting",
    "finetune": f"{_BASE}.finetuning",
    "fit": f"{_BASE}.fitting",
    "from_pretrained": f"{_BASE}.pretrained",
    "load_run": f"{_BASE}.run_folder",
    "continual": f"{_BASE}.continual_learning",
    "multistage": f"{_BASE}.multistage_learning",
    "save_pretrained": f"{_BASE}.pretrained",
}

__all__ = [*_EXPORTS]
__getattr__, __dir__ = lazy_exports(__name__, _EXPORTS)
