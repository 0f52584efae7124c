"""One module a stage, named like its rule file, its CLI verb, its log folder and its test file.

A stage module has
- `KEYS`: the names that choose one job, e.g. `("dataset", "model")`, in the order of the command line;
- `class Params(NamedTuple)`: everything that changes the result besides the input files and the code, JSON-able. The rule
  tracks it, and the job sees nothing else of the configuration, so what is tracked and what is used cannot differ;
- `params(config, *names) -> Params`: picks them from the validated configuration;
- `modules(params) -> tuple[str, ...]` (optional): modules that the job loads by name (an architecture, a layout, a method), whose
  code counts as the stage's own;
- `gpus(params) -> int` (optional): GPUs that the job asks for, of the scheduler and then of `medbench.devices`; the others of a host
  are hidden from it, all of them where it asks for none;
- `run(params, *names)`: reads and writes the files of `medbench.paths`; raises MedbenchError for what a user can mend; may return a
  dictionary of facts for the run record.

Importing a stage is cheap: torch, transformers, scikit-learn and altair are imported inside functions or in modules loaded by name.
"""

STAGES = (
    "pretrain", "fetch", "prepare", "embed", "prompts", "adapt", "predict",
    "score", "twins", "interval", "gaps", "ledger", "report",
)  # fmt: skip
