# embed: images and class prompts -> embeddings, once per model and data set.
# REQUIRED INPUTS: results/data/{dataset}/    OUTPUTS: results/embeddings/, results/prompts/


rule embed:
    input:
        images=paths.images("{dataset}"),
        checkpoint=get_checkpoint,
    output:
        paths.embeddings("{dataset}", "{model}"),
    log:
        paths.log("embed", "{dataset}", "{model}"),
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=get_memory("embed", "dataset", "model"),
        runtime=get_runtime("embed", "dataset", "model"),
        gpu=get_gpus("embed", "dataset", "model"),
    params:
        tracked=get_params("embed", "dataset", "model"),
    shell:
        "python -m medbench embed {wildcards.dataset} {wildcards.model} > {log} 2>&1"


rule prompts:
    input:
        checkpoint=get_checkpoint,
    output:
        paths.prompts("{dataset}", "{model}"),
    log:
        paths.log("prompts", "{dataset}", "{model}"),
    conda:
        "../envs/model.yaml"
    resources:
        mem_mb=get_memory("prompts", "dataset", "model"),
        runtime=get_runtime("prompts", "dataset", "model"),
    params:
        tracked=get_params("prompts", "dataset", "model"),
    shell:
        "python -m medbench prompts {wildcards.dataset} {wildcards.model} > {log} 2>&1"
