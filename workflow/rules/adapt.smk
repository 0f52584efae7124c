# adapt: linear probes and LoRA, each with its certificate.
# REQUIRED INPUTS: results/data/ or results/embeddings/    OUTPUTS: results/adapters/{dataset}/{model}/{mode}/


rule adapt:
    input:
        get_adapt_input,
    output:
        paths.adapter_files("{dataset}", "{model}", "{mode}"),
    log:
        paths.log("adapt", "{dataset}", "{model}", "{mode}"),
    priority: 1  # the longest jobs early, so that none of them ends alone
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=get_memory("adapt", "dataset", "model", "mode"),
        runtime=get_runtime("adapt", "dataset", "model", "mode"),
        gpu=get_gpus("adapt", "dataset", "model", "mode"),
    params:
        tracked=get_params("adapt", "dataset", "model", "mode"),
    shell:
        "python -m medbench adapt {wildcards.dataset} {wildcards.model} {wildcards.mode} > {log} 2>&1"
