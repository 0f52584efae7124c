# predict: the cell itself. validate: the same of the validation split, where several models of a side are to be chosen from.
# REQUIRED INPUTS: results/data/, results/embeddings/ and results/prompts/ or the model, results/adapters/
# OUTPUTS: results/predictions/{dataset}/{model}/{mode}.parquet, results/validation/{dataset}/{model}/{mode}.parquet


rule predict:
    input:
        get_inputs("predict"),
    output:
        get_outputs("predict"),
    log:
        get_log("predict"),
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=get_memory("predict"),
        runtime=get_runtime("predict"),
        gpu=get_gpus("predict"),
    params:
        rerun_key=get_rerun_key("predict"),
    shell:
        "python -m medbench predict {wildcards.dataset} {wildcards.model} {wildcards.mode} > {log} 2>&1"


rule validate:
    input:
        get_inputs("validate"),
    output:
        get_outputs("validate"),
    log:
        get_log("validate"),
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=get_memory("validate"),
        runtime=get_runtime("validate"),
        gpu=get_gpus("validate"),
    params:
        rerun_key=get_rerun_key("validate"),
    shell:
        "python -m medbench validate {wildcards.dataset} {wildcards.model} {wildcards.mode} > {log} 2>&1"


# Models behind a server. On a cluster they are asked from where Snakemake runs, since compute nodes often have no network; a profile
# says otherwise by `config: [remote_jobs=cluster]`.
REMOTE = "|".join(re.escape(name) for name, entry in CONFIG.models.items() if entry.endpoint)

if REMOTE:

    use rule predict as predict_remote with:
        wildcard_constraints:
            model=REMOTE,

    use rule validate as validate_remote with:
        wildcard_constraints:
            model=REMOTE,

    ruleorder: predict_remote > predict
    ruleorder: validate_remote > validate

    if REMOTE_JOBS == "local":

        localrules:
            predict_remote,
            validate_remote,
